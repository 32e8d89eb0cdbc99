"""Running: from a config to a run that can be trusted and resumed, with its hooks, and with its errors in words."""

from ..checks import check_files, check_options, check_run
from .config import read_config, set_kept_features, set_resume, set_scaling
from .errors import RunStopped, errors_in_words
from .hooks import (
    AgreeHook,
    AtomicCheckpointHook,
    CompileHook,
    CudaGraphHook,
    HalfFrozenHook,
    IgnoredBatchHook,
    KeepFeaturesHook,
    MissedValidationHook,
    NonFiniteHook,
    ParameterTableHook,
    ProgressHook,
    SameBuffersHook,
    SeedIterationHook,
    StopOnSignalHook,
    SweepHook,
    TrackingHook,
    ValidationPicturesHook,
)
from .launching import set_launching, set_usual_kernels
from .nodes import join
from .optimizer import TrainedPartsConstructor
from .precision import Bf16OptimWrapper, set_precision, set_test_precision
from .runner import Runner
from .sweep import SweepConstructor, SweepEvaluator, swept
from .trackers import set_tracking

__all__ = [
    'AgreeHook', 'AtomicCheckpointHook', 'Bf16OptimWrapper', 'CompileHook', 'CudaGraphHook', 'HalfFrozenHook',
    'IgnoredBatchHook', 'KeepFeaturesHook', 'MissedValidationHook', 'NonFiniteHook', 'ParameterTableHook',
    'ProgressHook', 'RunStopped', 'Runner', 'SameBuffersHook', 'SeedIterationHook', 'StopOnSignalHook',
    'SweepConstructor', 'SweepEvaluator', 'SweepHook', 'TrackingHook', 'TrainedPartsConstructor',
    'ValidationPicturesHook', 'check_files', 'check_options', 'check_run', 'errors_in_words', 'join', 'read_config',
    'set_kept_features', 'set_launching', 'set_precision', 'set_resume', 'set_scaling', 'set_test_precision',
    'set_tracking', 'set_usual_kernels', 'swept'
]

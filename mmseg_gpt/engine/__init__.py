"""Running: config and command line, precision, processes, hooks, checks before a run."""

from ..checks import check_files, check_options, check_run
from .checkpointing import AtomicCheckpointHook
from .config import errors_in_words, read_config, set_resume
from .guards import AgreeHook, IgnoredBatchHook, NonFiniteHook, RunStopped, SameBuffersHook, StopOnSignalHook
from .hooks import ParameterTableHook
from .optimizer import TrainedPartsConstructor
from .pictures import ValidationPicturesHook
from .precision import Bf16OptimWrapper, set_precision, set_test_precision
from .reproducible import SeedIterationHook
from .runner import Runner
from .trackers import set_tracking
from .tracking import TrackingHook

__all__ = [
    'AgreeHook', 'AtomicCheckpointHook', 'Bf16OptimWrapper', 'IgnoredBatchHook', 'NonFiniteHook', 'ParameterTableHook',
    'RunStopped', 'Runner', 'SameBuffersHook', 'SeedIterationHook', 'StopOnSignalHook', 'TrackingHook',
    'TrainedPartsConstructor', 'ValidationPicturesHook', 'check_files', 'check_options', 'check_run', 'errors_in_words',
    'read_config', 'set_precision', 'set_resume', 'set_test_precision', 'set_tracking'
]

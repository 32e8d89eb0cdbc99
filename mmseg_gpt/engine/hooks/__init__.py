"""The hooks of a run, one in each file. The runner adds those it cannot do without; others are options of a config."""

from .agree import AgreeHook
from .atomic_checkpoint import AtomicCheckpointHook
from .compile import CompileHook
from .cuda_graph import CudaGraphHook
from .early_stopping import EarlyStoppingHook
from .half_frozen import HalfFrozenHook
from .ignored_batch import IgnoredBatchHook
from .keep_features import KeepFeaturesHook
from .missed_validation import MissedValidationHook
from .non_finite import NonFiniteHook
from .parameter_table import ParameterTableHook, parameter_table
from .predictions import LabelMapsHook, PicturesHook
from .progress import ProgressHook
from .same_buffers import SameBuffersHook
from .seed_iteration import SeedIterationHook
from .stop_on_signal import StopOnSignalHook
from .sweep import SweepHook
from .tracking import TrackingHook
from .validation_pictures import ValidationPicturesHook

__all__ = [
    'AgreeHook', 'AtomicCheckpointHook', 'CompileHook', 'CudaGraphHook', 'EarlyStoppingHook', 'HalfFrozenHook',
    'IgnoredBatchHook', 'KeepFeaturesHook', 'LabelMapsHook', 'MissedValidationHook', 'NonFiniteHook',
    'ParameterTableHook', 'PicturesHook', 'ProgressHook', 'SameBuffersHook', 'SeedIterationHook', 'StopOnSignalHook',
    'SweepHook', 'TrackingHook', 'ValidationPicturesHook', 'parameter_table'
]

"""Running: config and command line, precision, processes, hooks, checks before a run."""

from .config import add_common_arguments, read_config, set_resume
from .hooks import ParameterTableHook, SafeCheckpointHook
from .optimizer import TrainedPartsConstructor
from .precision import Bf16OptimWrapper, set_precision
from .preflight import check_files, check_options, check_paramwise, check_run
from .runner import Runner

__all__ = [
    'Bf16OptimWrapper', 'ParameterTableHook', 'Runner', 'SafeCheckpointHook', 'TrainedPartsConstructor',
    'add_common_arguments', 'check_files', 'check_options', 'check_paramwise', 'check_run', 'read_config',
    'set_precision', 'set_resume'
]

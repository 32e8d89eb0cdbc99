"""Gated Prompt Tuning of frozen vision transformers, as a plugin of OpenMMLab.

Importing this package applies the shims and registers the backbone and the hooks. Import it before ``mmseg`` or
``mmpretrain``. In ``custom_imports``, a config of segmentation also names ``mmseg_gpt.segmentation``, and one of
classification ``mmseg_gpt.classification.datasets``.
"""

from importlib import import_module

__version__ = '0.1.0'

from . import compat  # isort: skip  # noqa: F401  must come first
from . import checkpoints, engine, models  # noqa: F401


def __getattr__(name: str) -> object:
    """Imports :func:`adapt` when it is asked for, with all that it needs."""
    if name == 'adapt':
        return import_module('.own_data', __name__).adapt
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

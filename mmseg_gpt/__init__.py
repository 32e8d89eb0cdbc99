"""Gated Prompt Tuning of frozen vision transformers, as a plugin of OpenMMLab.

Importing this package applies the shims and registers everything, so
``custom_imports = dict(imports=['mmseg_gpt'])`` in a config is all that is needed. Import it before
``mmseg`` or ``mmpretrain``.
"""

__version__ = '0.1.0'

from . import compat  # isort: skip  # noqa: F401  must come first
from . import checkpoints, engine, models  # noqa: F401

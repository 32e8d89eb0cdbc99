"""Gated Prompt Tuning of frozen vision transformers, as a plugin of OpenMMLab.

Importing this package applies the shims and registers the backbone and the hooks. Import it before ``mmseg`` or
``mmpretrain``. In ``custom_imports``, a config of segmentation also names ``mmseg_gpt.segmentation``, and one of
classification ``mmseg_gpt.classification.datasets``.
"""

__version__ = '0.1.0'

from . import compat  # isort: skip  # noqa: F401  must come first
from . import checkpoints, engine, models  # noqa: F401

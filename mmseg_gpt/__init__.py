"""Gated Prompt Tuning of frozen vision transformers, as a plugin of OpenMMLab.

Importing this package applies the shims and registers everything, so
``custom_imports = dict(imports=['mmseg_gpt'])`` in a config is all that is needed. Import it before
``mmseg`` or ``mmpretrain``.
"""

import gc

__version__ = '0.1.0'

# What imports make stays until the end, so nothing is gained by looking through it for garbage, now, while training, or
# in a worker, which would copy each page that it looks at. Now alone it would take a sixth of the time.
_collects = gc.isenabled()
gc.disable()
try:
    from . import compat  # isort: skip  # noqa: F401  must come first
    from . import checkpoints, engine, models  # noqa: F401
finally:
    gc.freeze()
    if _collects:
        gc.enable()

"""Gated Prompt Tuning of frozen vision transformers, as a plugin of OpenMMLab.

Importing this package applies the shims and registers everything, so
``custom_imports = dict(imports=['mmseg_gpt'])`` in a config is all that is needed. Import it before
``mmseg`` or ``mmpretrain``.
"""

import gc
import sys

__version__ = '0.1.0'

# What imports make stays until the end, so nothing is gained by looking through it for garbage, now, while training, or
# in a worker, which would copy each page that it looks at. Now alone it would take a sixth of the time.
_collects, _fresh = gc.isenabled(), 'torch' not in sys.modules
gc.disable()
try:
    from . import compat  # isort: skip  # noqa: F401  must come first
    from . import checkpoints, engine, models  # noqa: F401
finally:
    if _fresh:  # else there may be models, which must be freed once they are dropped
        gc.freeze()
    if _collects:
        gc.enable()

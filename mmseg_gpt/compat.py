"""Shims that let stock OpenMMLab wheels import beside today's torch.

Each shim is conditional, does nothing where it is not needed, and names the
release at which it can go. Importing this module applies all of them; it must
happen before anything imports ``mmseg``, ``mmcv.ops`` or ``torchvision``.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import torch

# Kept alive for the process: torch drops the schemas with the object.
_torchvision_library: torch.library.Library | None = None


class MissingOps:
    """Stands for ``mmcv._ext`` where mmcv has none: any op fails when called, not when imported."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing_op(*args, **kwargs):
            raise RuntimeError(
                f'the compiled mmcv op "{name}" is not there: this environment has mmcv-lite. '
                'Install the full mmcv to use it; SETR and GatedPromptViT need no compiled op.')

        return missing_op


def check_opencv() -> None:
    """Says what to do where opencv-python, which mmengine asks for, finds no libGL on a machine without a display.

    Raises:
        ImportError: cv2 is missing or does not load.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ImportError(f'OpenCV does not load ({error}). Without libGL: pip uninstall -y opencv-python, then '
                          'pip install --force-reinstall --no-deps opencv-python-headless') from error


def allow_mmcv_without_ops() -> bool:
    """Lets ``mmcv.ops`` be imported with mmcv-lite, which mmseg 1.2.2 does without a guard.

    ``mmengine.utils.dl_utils.mmcv_full_available()`` stays False. Not needed with onedl-mmsegmentation
    (1.3 and later), which guards these imports; can go with the support of mmsegmentation 1.2.

    Returns:
        bool: True if the shim was needed and is in place.

    Raises:
        ImportError: neither mmcv nor mmcv-lite is installed.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is missing. Install it with: pip install "mmcv-lite==2.1.0" '
                          '(no compiler needed), or the full mmcv==2.1.0.')
    if importlib.util.find_spec('mmcv._ext') is not None:
        return False
    import mmseg  # imports no part of itself
    from mmengine.utils import digit_version
    if digit_version(mmseg.__version__) >= digit_version('1.3.0'):
        return False
    from mmcv.utils import ext_loader
    load_ext = ext_loader.load_ext
    if getattr(load_ext, 'is_shim', False):
        return True

    def load_ext_or_placeholder(name: str, funcs: list[str]) -> ModuleType | MissingOps:
        try:
            return load_ext(name, funcs)
        except ModuleNotFoundError:
            return MissingOps()

    load_ext_or_placeholder.is_shim = True
    ext_loader.load_ext = load_ext_or_placeholder
    return True


def allow_torchvision_beside_cpu_torch() -> bool:
    """Declares the op schemas torchvision's Python needs where its binary does not fit a CPU torch.

    An index that serves a CUDA build of torchvision may have no CPU one, and ``import torchvision`` then
    fails with ``operator torchvision::nms does not exist``. A binary that loads is used as it is.
    Can go when torchvision (0.28.0 here) imports without its binary.

    Returns:
        bool: True if the shim was needed and is in place.
    """
    global _torchvision_library
    if _torchvision_library is not None:
        return True
    spec = importlib.util.find_spec('torchvision')
    if torch.version.cuda is not None or spec is None:
        return False
    binaries = sorted(Path(spec.submodule_search_locations[0]).glob('_C*.so'))
    if not binaries:
        return False
    try:
        torch.ops.load_library(str(binaries[0]))
        return False
    except OSError:
        _torchvision_library = torch.library.Library('torchvision', 'FRAGMENT')
        for op in ('nms', 'qnms'):
            _torchvision_library.define(f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        return True


check_opencv()
allow_mmcv_without_ops()
allow_torchvision_beside_cpu_torch()

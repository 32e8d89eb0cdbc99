"""Shims that let stock OpenMMLab wheels import beside today's torch.

Each shim does nothing where it is not needed, and names the release at which it can go. Importing this module applies
all of them. Import it before ``mmseg``, ``mmcv.ops`` and ``torchvision``.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

import numpy as np
import torch

# Kept alive as long as the process, because torch drops the schemas with the object.
_torchvision_library: torch.library.Library | None = None


class MissingOps:
    """Replacement for ``mmcv._ext`` where mmcv has none: an op fails when it is called, not when it is imported."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing_op(*args, **kwargs):
            raise RuntimeError(
                f'the compiled mmcv op "{name}" is not there: this environment has mmcv-lite. '
                'Install the full mmcv to use it; SETR and GatedPromptViT need no compiled op.')

        return missing_op


def check_opencv() -> None:
    """Checks that OpenCV loads. mmengine requires opencv-python, which needs a libGL that servers often lack.

    Raises:
        ImportError: cv2 is missing or does not load; the message says what to do.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ImportError(f'OpenCV does not load ({error}). Without libGL: pip uninstall -y opencv-python, then '
                          'pip install --force-reinstall --no-deps opencv-python-headless') from error


def allow_mmcv_without_ops() -> bool:
    """Lets mmseg 1.2.2 import ``mmcv.ops`` with mmcv-lite, which has no compiled ops.

    ``mmengine.utils.dl_utils.mmcv_full_available()`` stays False. The shim is not needed with onedl-mmsegmentation
    (1.3 and later), which guards these imports. It can go when mmsegmentation 1.2 is no longer supported.

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
    """Declares the ops that torchvision's Python code needs where its binary does not fit a CPU torch.

    A package index may have a CUDA build of torchvision and no CPU build. Then ``import torchvision``
    fails with ``operator torchvision::nms does not exist``. A binary that loads is used as it is.
    The shim can go when torchvision (0.28.0 here) imports without its binary.

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


class LateModule(ModuleType):
    """Replacement for a package, which imports it when one of its attributes is used."""

    def __getattr__(self, name: str):
        return getattr(importlib.import_module(self.__name__), name)


class LateName:
    """Replacement for what a module has, which imports the module when it is called or one of its attributes is used.

    Args:
        module: The module's name.
        name: A function or a submodule in it.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *args: object, **options: object) -> object:
        return getattr(importlib.import_module(self._module), self._name)(*args, **options)

    def __getattr__(self, name: str) -> object:
        return getattr(getattr(importlib.import_module(self._module), self._name), name)


class LateNames(ModuleType):
    """Replacement for a module, from which names are imported: each is a :class:`LateName`."""

    def __getattr__(self, name: str) -> LateName:
        if name.startswith('__'):
            raise AttributeError(name)
        return LateName(self.__name__, name)


class LeftOut:
    """Replacement for a class of a module that is not imported: it can be inherited from, and not be made."""

    def __init__(self, *args: object, **options: object) -> None:
        raise RuntimeError(f'{type(self).__name__} needs torch.distributed.fsdp: import it before mmseg_gpt, which '
                           'leaves it out')


class LeftOutModule(ModuleType):
    """Replacement for a module, all of whose classes are left out."""

    def __getattr__(self, name: str) -> type:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (LeftOut, ), {})


SHARDING = ('torch.distributed.fsdp', 'torch.distributed.fsdp.api',
            'torch.distributed.fsdp.fully_sharded_data_parallel', 'torch.distributed.optim')


class ImportsLate:
    """Import finder that spares the time for packages which few runs need.

    * ``mmseg.models`` always imports its backbones of timm; timm takes a second and imports torchvision. It is
      imported when such a backbone is built. So is scipy, which takes half a second, for what needs it. The shim can
      go when mmsegmentation (1.2.2 here) does that.
    * ``mmengine.runner`` always imports what divides a model or its optimizer among processes, which takes a second
      and imports sympy. The tools refuse it, see :func:`.checks.pairs.ignored_settings`; others import
      ``torch.distributed.fsdp`` first. The shim can go when MMEngine (0.10.7 here) imports it where it is used.
    """

    LATE = {
        'mmseg.models.backbones.timm_backbone': (LateModule, ('timm', )),
        'mmseg.models.backbones.beit': (LateNames, ('scipy', )),
        'mmseg.models.assigners.hungarian_assigner': (LateNames, ('scipy.optimize', )),
        'mmseg.models.losses.huasdorff_distance_loss': (LateNames, ('scipy.ndimage', )),
        'mmseg.datasets.transforms.transforms': (LateNames, ('scipy.ndimage', )),
        'mmengine.model.wrappers.fully_sharded_distributed': (LeftOutModule, SHARDING),
        'mmengine.optim.optimizer.zero_optimizer': (LeftOutModule, SHARDING),
        'mmengine._strategy.fsdp': (LeftOutModule, SHARDING),
    }

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        replacement, packages = cls.LATE.get(name, (None, ()))
        if replacement is None or packages[0] in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or importlib.util.find_spec(packages[0].partition('.')[0]) is None:
            return spec
        execute = spec.loader.exec_module

        def execute_without(module: ModuleType) -> None:
            absent = {package: replacement(package) for package in packages if package not in sys.modules}
            sys.modules.update(absent)
            try:
                execute(module)
            finally:
                for package in absent:
                    del sys.modules[package]

        spec.loader.exec_module = execute_without
        return spec


def import_late() -> None:
    """Puts :class:`ImportsLate` before Python's own finders."""
    if ImportsLate not in sys.meta_path:
        sys.meta_path.insert(0, ImportsLate)


def formatter_module() -> ModuleType:
    """Returns the module whose ``FormatCode`` MMEngine's Config calls: its own, or yapf's with onedl-mmengine."""
    from mmengine.config import config
    from yapf.yapflib import yapf_api
    return config if hasattr(config, 'FormatCode') else yapf_api


def format_config_once() -> Callable:
    """Lets MMEngine format the text of a config once, instead of five times in a run's first seconds.

    The log, two files, the message hub and each checkpoint hold the same text. The shim can go when MMEngine (0.10.7
    here) keeps the formatted text.

    Returns:
        Callable: The function that MMEngine now calls in the place of yapf's ``FormatCode``.
    """
    place = formatter_module()
    format_code = place.FormatCode
    if getattr(format_code, 'is_shim', False):
        return format_code

    formatted: dict[str, tuple[str, bool]] = {}

    def format_once(text: str, **options: dict | bool) -> tuple[str, bool]:
        key = f'{options} {text}'
        if key not in formatted:
            formatted.clear()  # a run has one config
            formatted[key] = format_code(text, **options)
        return formatted[key]

    format_once.is_shim = True
    place.FormatCode = format_once
    return format_once


def append_history_in_place() -> None:
    """Lets MMEngine's HistoryBuffer append a number in constant time, instead of copying the whole history.

    At the end of a run of 160,000 iterations that copy takes milliseconds of each iteration. The shim can go when
    MMEngine (0.10.7 here) no longer copies.
    """
    from mmengine.logging import HistoryBuffer
    if getattr(HistoryBuffer.update, 'is_shim', False):
        return
    # For each buffer, the memory at whose beginning its two histories lie. Kept outside it, as it may be pickled.
    room: WeakKeyDictionary[HistoryBuffer, dict] = WeakKeyDictionary()

    def update(self: HistoryBuffer, log_val: int | float, count: int = 1) -> None:
        if not isinstance(log_val, int | float) or not isinstance(count, int | float):
            raise TypeError(f'a HistoryBuffer takes numbers, not {type(log_val)} and {type(count)}')
        own = room.setdefault(self, {})
        for name, value in (('_log_history', log_val), ('_count_history', count)):
            history = getattr(self, name)
            memory, ours = own.get(name, (None, None))
            kind = np.result_type(history, np.asarray(value))
            if history is not ours or len(history) == len(memory) or kind != history.dtype:
                memory = np.empty(2 * len(history) + 16, kind)
                memory[:len(history)] = history
            memory[len(history)] = value
            history = memory[:len(history) + 1][-self.max_length:]
            own[name] = memory, history if len(history) < self.max_length else None
            setattr(self, name, history)

    update.is_shim = True
    HistoryBuffer.update = update


def place_names_at_once() -> None:
    """Lets mmsegmentation find where to write the name of a class without sorting a picture's pixels in Python.

    A picture of 512x683 pixels, with labels and predictions, takes it a second. The shim is applied where
    ``mmseg_gpt.segmentation`` is imported, and can go when mmsegmentation (1.2.2 here) no longer sorts.
    """
    from mmseg.visualization import SegLocalVisualizer

    def middle_of_fullest_row(self: SegLocalVisualizer, mask: np.ndarray) -> np.ndarray:
        y = np.count_nonzero(mask == 1, axis=1).argmax()
        inside = np.flatnonzero(mask[y] == 1)
        return np.array([inside[len(inside) // 2], y])

    SegLocalVisualizer._get_center_loc = middle_of_fullest_row


check_opencv()
import_late()  # before anything imports mmengine.model
allow_mmcv_without_ops()
allow_torchvision_beside_cpu_torch()
format_config_once()
append_history_in_place()

"""Checks of settings: numbers, the device, the work directory, the schedule."""

import math
import os
import shutil
from collections.abc import Iterator
from numbers import Real
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device

from ..settings import look_up

# The least that each number may be, wherever in its section it stands.
LEAST = dict(max_iters=1, max_epochs=1, val_interval=1, val_begin=0, batch_size=1, num_workers=0, num_tokens=1,
             crop_size=1, stride=1, img_size=1, patch_size=1, num_classes=1, window_batch=1)
NOT_WHOLE = dict(lr=0., weight_decay=0.)
NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')


def wrong_numbers(cfg: Config, loaders: tuple[str, ...]) -> list[str]:
    """Says which numbers of the config make no sense."""
    problems = []
    for section in ('train_cfg', 'model', 'optim_wrapper', *loaders):
        for path, name, value in numbers(cfg.get(section), section):
            least, whole = (LEAST | NOT_WHOLE)[name], name in LEAST
            if name == 'crop_size' and isinstance(value, float) and 0 < value <= 1:
                continue  # mmpretrain has crops relative to the image
            if not isinstance(value, Real) or not (least <= value < math.inf) or (whole and value != int(value)):
                problems.append(f'{path} is {value!r}; it must be {"a whole" if whole else "a"} number of {least} or '
                                'more')
    for loader in loaders:
        if cfg[loader].get('persistent_workers') and cfg[loader].get('num_workers') == 0:
            problems.append(f'{loader}: persistent_workers=True needs num_workers of 1 or more; set it to False')
    test_cfg = look_up(cfg, 'model.test_cfg') or {}
    stride, crop = test_cfg.get('stride'), test_cfg.get('crop_size')
    if test_cfg.get('mode') == 'slide' and stride and crop and any(s > c for s, c in zip(stride, crop)):
        problems.append(f'model.test_cfg.stride {tuple(stride)} is more than its crop_size {tuple(crop)}, which leaves '
                        'gaps between the windows')
    return problems


def numbers(value: object, path: str) -> Iterator[tuple[str, str, object]]:
    """Walks a section and yields the path, the name and the value of each setting that has a least value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, each in items:
        if key in LEAST or key in NOT_WHOLE:
            for one in each if isinstance(each, (list, tuple)) else [each]:
                if one is not None:
                    yield f'{path}.{key}', key, one
        else:
            yield from numbers(each, f'{path}.{key}')


def wrong_device(cfg: Config, device: str) -> list[str]:
    """Says that a GPU is asked for where torch sees none."""
    asked = {
        '--device cuda': device == 'cuda',
        f'CUDA_VISIBLE_DEVICES={os.environ.get("CUDA_VISIBLE_DEVICES")}': bool(visible_gpus()),
    }
    wrapper = look_up(cfg, 'optim_wrapper.type')
    problems = []
    if not torch.cuda.is_available():
        problems = [f'{name} asks for a GPU, but {no_gpu()}' for name, is_asked in asked.items() if is_asked]
    if wrapper == 'AmpOptimWrapper' and get_device() == 'cpu':
        problems.append('optim_wrapper.type "AmpOptimWrapper" needs a GPU; on a CPU use Bf16OptimWrapper, that is '
                        '--amp bf16')
    return problems


def visible_gpus() -> str | None:
    """What CUDA_VISIBLE_DEVICES names; empty if it hides all GPUs, None if it is not set."""
    value = os.environ.get('CUDA_VISIBLE_DEVICES')
    return '' if value is not None and value.strip() in ('', '-1', 'NoDevFiles') else value


def no_gpu() -> str:
    """Why torch sees no GPU, as far as can be told."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f'torch {torch.__version__} is a build for CPUs only; install its CUDA build'
    return f'torch {torch.__version__} sees none; look at what nvidia-smi says about the driver'


def split_steps(cfg: Config) -> list[str]:
    """Warns of checkpoints in the middle of a step, whose gradients a resumed run would lack."""
    counts = look_up(cfg, 'optim_wrapper.accumulative_counts') or 1
    hook = look_up(cfg, 'default_hooks.checkpoint') or {}
    if hook.get('by_epoch', True) or hook.get('interval', -1) % counts == 0:
        return []
    return [f'default_hooks.checkpoint.interval ({hook.interval}) is not a multiple of '
            f'optim_wrapper.accumulative_counts ({counts}): a resumed run will lack the gradients of up to '
            f'{counts - 1} iterations']


def unused_gpu() -> list[str]:
    """Warns that there is an NVIDIA driver, but that torch will not use a GPU."""
    has_driver = NVIDIA_DRIVER.exists() or shutil.which('nvidia-smi')
    if torch.cuda.is_available() or not has_driver or visible_gpus() == '':
        return []
    return [f'this machine has an NVIDIA driver, but training runs on the CPU: {no_gpu()}']


def wrong_work_dir(cfg: Config) -> list[str]:
    """Says that the work directory cannot be made or written."""
    work_dir = cfg.get('work_dir')
    if work_dir is None:
        return []
    place = nearest_folder(work_dir)
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return []
    why = 'is not a folder' if not place.is_dir() else 'cannot be written by this user'
    return [f'the work directory {work_dir} cannot be used, because {place} {why}; choose another with --work-dir']


def nearest_folder(path: str | Path) -> Path:
    """``path``, or the first of its parents that exists."""
    path = Path(path).resolve()
    return next(place for place in (path, *path.parents) if place.exists())


def odd_schedule(cfg: Config) -> list[str]:
    """Warns of learning rate schedules that end before or after training does."""
    schedulers, warnings = cfg.get('param_scheduler') or [], []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    for unit, by_epoch in (('max_iters', False), ('max_epochs', True)):
        until = look_up(cfg, f'train_cfg.{unit}')
        ends = [s.end for s in schedulers if s.get('by_epoch', True) == by_epoch and isinstance(s.get('end'), int)]
        if until and ends and max(ends) != until:
            warnings.append(f'param_scheduler ends at {max(ends):,}, but train_cfg.{unit} is {until:,}: the learning '
                            f'rate {"does not come to its end" if max(ends) > until else "stays as it is from there"}')
    return warnings

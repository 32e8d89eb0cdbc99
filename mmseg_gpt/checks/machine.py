"""Checks of the machine: whether it has the GPU, the folder and the room on its disk that a run needs."""

import os
import shutil
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import OPTIMIZERS
from torch import nn

from ..adapters import frozen_state, unwrap
from ..settings import look_up, type_name
from .pairs import default_best

NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')


def wrong_device(cfg: Config, device: str) -> list[str]:
    """Says that a GPU is asked for where torch sees none."""
    asked = {
        '--device cuda': device == 'cuda',
        f'CUDA_VISIBLE_DEVICES={os.environ.get("CUDA_VISIBLE_DEVICES")}': bool(visible_gpus()),
    }
    wrapper = type_name(cfg.get('optim_wrapper'))
    problems = []
    if not torch.cuda.is_available():
        problems = [f'{name} asks for a GPU, but {no_gpu()}' for name, is_asked in asked.items() if is_asked]
    if wrapper == 'AmpOptimWrapper' and get_device() == 'cpu':
        problems.append('optim_wrapper.type "AmpOptimWrapper" needs a GPU; on a CPU use Bf16OptimWrapper, that is '
                        '--amp bf16')
    return problems


def visible_gpus() -> str | None:
    """Returns what CUDA_VISIBLE_DEVICES names: '' if it hides all GPUs, None if it is not set."""
    value = os.environ.get('CUDA_VISIBLE_DEVICES')
    return '' if value is not None and value.strip() in ('', '-1', 'NoDevFiles') else value


def no_gpu() -> str:
    """Says why torch sees no GPU, as far as can be told."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f'torch {torch.__version__} is a build for CPUs only; install its CUDA build'
    return f'torch {torch.__version__} sees none; look at what nvidia-smi says about the driver'


def unused_gpu() -> list[str]:
    """Returns a warning where there is an NVIDIA driver, but torch will not use a GPU."""
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
    """Returns ``path`` itself, or the first of its parents that exists."""
    path = Path(path).resolve()
    return next(place for place in (path, *path.parents) if place.exists())


def full_disk(cfg: Config, model: nn.Module) -> list[str]:
    """Says that the disk has no room for the checkpoints of the run, and how much is needed and free."""
    hook = look_up(cfg, 'default_hooks.checkpoint') or {}
    folder = str(Path(hook.out_dir, Path(cfg.work_dir).name)) if hook.get('out_dir') else cfg.work_dir
    if not look_up(cfg, 'train_cfg') or '://' in folder:
        return []
    size = checkpoint_size(cfg, unwrap(model))
    kept = kept_checkpoints(cfg)
    best = hook.get('save_best') or default_best(cfg)
    best = len(best) if isinstance(best, list) else int(bool(best))
    # Those of an earlier start are overwritten or removed; the newest is first written under another name.
    present = sum(path.stat().st_size for path in Path(folder).glob('*.pth'))
    needed = max((kept + best) * size - present, 0) + size
    free = shutil.disk_usage(nearest_folder(folder)).free
    if needed <= free:
        return []
    return [f'the disk of {folder} has {gibibytes(free)} free, but checkpoints need {gibibytes(needed)}: {kept} to keep'
            f'{f", {best} of the best" if best else ""} and 1 being written, each of {gibibytes(size)}. Make room, '
            'choose another --work-dir, or set default_hooks.checkpoint.max_keep_ckpts']


def kept_checkpoints(cfg: Config) -> int:
    """Counts the checkpoints of a whole run that stay on the disk, besides the best one."""
    hook = look_up(cfg, 'default_hooks.checkpoint') or dict(interval=1)
    length = look_up(cfg, 'train_cfg.max_epochs' if hook.get('by_epoch', True) else 'train_cfg.max_iters') or 1
    interval, most = hook.get('interval', -1), hook.get('max_keep_ckpts', -1)
    written = length // interval if interval > 0 else 0
    if hook.get('save_last', True) and (interval <= 0 or length % interval):
        written += 1
    return min(written, most) if most > 0 else written


def checkpoint_size(cfg: Config, model: nn.Module) -> int:
    """Counts the bytes of a checkpoint: weights, buffers, and what the optimizer keeps of trained parameters."""
    hook = look_up(cfg, 'default_hooks.checkpoint') or {}
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    if hook.get('adapter_only'):
        weights -= sum(tensor.nbytes for tensor in frozen_state(model).values())
    if not hook.get('save_optimizer', True):
        return weights
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return weights + trained * states_per_parameter(look_up(cfg, 'optim_wrapper.optimizer'))


def states_per_parameter(optimizer: dict | None) -> int:
    """Finds by a step how many numbers an optimizer keeps for each parameter: SGD with momentum 1, Adam 2."""
    if not optimizer:
        return 2  # several optimizers; what Adam keeps
    parameter = nn.Parameter(torch.zeros(1, 1))
    parameter.grad = torch.zeros(1, 1)
    built = OPTIMIZERS.build(dict(optimizer, params=[parameter]))
    built.step()
    return sum(isinstance(value, torch.Tensor) and value.shape == parameter.shape
               for value in built.state[parameter].values())


def gibibytes(size: int) -> str:
    """Writes a number of bytes in GiB."""
    return f'{size / 2**30:.2f} GiB'

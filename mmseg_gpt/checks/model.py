"""Checks that need the built model: parameter groups, and room for checkpoints."""

import shutil
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from torch import nn

from ..adapters import frozen_state, unwrap
from ..models import GatedPromptViT
from ..settings import look_up
from .values import nearest_folder


def wrong_backbone(cfg: Config) -> list[str]:
    """Says which option of our backbone is out of its range; it is built without memory for its weights."""
    options = dict(look_up(cfg, 'model.backbone') or {})
    if options.pop('type', None) != 'GatedPromptViT':
        return []
    try:
        with torch.device('meta'):
            GatedPromptViT(**options)
    except (KeyError, TypeError, ValueError) as error:  # KeyError: a prompt that is not registered
        return [f'model.backbone: {error.args[0]}']
    return []


def wrong_paramwise(cfg: Config, model: nn.Module) -> list[str]:
    """Says which keys of ``paramwise_cfg.custom_keys`` match no trained parameter, so that they scale nothing."""
    keys = look_up(cfg, 'optim_wrapper.paramwise_cfg.custom_keys') or {}
    trained = [name for name, p in unwrap(model).named_parameters() if p.requires_grad]
    return [f'optim_wrapper.paramwise_cfg.custom_keys: "{key}" is in no trained parameter\'s name; '
            f'their names begin with {sorted({n.split(".")[0] for n in trained})}'
            for key in keys if not any(key in name for name in trained)]


def full_disk(cfg: Config, model: nn.Module) -> list[str]:
    """Says that the disk has no room for the checkpoints of the run, and how much is needed and free."""
    hook = look_up(cfg, 'default_hooks.checkpoint') or {}
    folder = str(Path(hook.out_dir, Path(cfg.work_dir).name)) if hook.get('out_dir') else cfg.work_dir
    if not look_up(cfg, 'train_cfg') or '://' in folder:
        return []
    size = checkpoint_size(cfg, unwrap(model))
    kept = kept_checkpoints(cfg)
    best = len(hook.save_best) if isinstance(hook.get('save_best'), list) else int(bool(hook.get('save_best')))
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
    """How many checkpoints of a whole run stay on the disk, besides the best one."""
    hook = look_up(cfg, 'default_hooks.checkpoint') or dict(interval=1)
    length = look_up(cfg, 'train_cfg.max_epochs' if hook.get('by_epoch', True) else 'train_cfg.max_iters') or 1
    interval, most = hook.get('interval', -1), hook.get('max_keep_ckpts', -1)
    written = length // interval if interval > 0 else 0
    if hook.get('save_last', True) and (interval <= 0 or length % interval):
        written += 1
    return min(written, most) if most > 0 else written


def checkpoint_size(cfg: Config, model: nn.Module) -> int:
    """Bytes of a checkpoint: all weights and buffers, and what the optimizer keeps of trained parameters."""
    hook = look_up(cfg, 'default_hooks.checkpoint') or {}
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    if hook.get('adapter_only'):
        weights -= sum(tensor.nbytes for tensor in frozen_state(model).values())
    if not hook.get('save_optimizer', True):
        return weights
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return weights + trained * states_per_parameter(look_up(cfg, 'optim_wrapper.optimizer'))


def states_per_parameter(optimizer: dict | None) -> int:
    """How many numbers an optimizer keeps for each parameter, found by a step: SGD with momentum 1, Adam 2."""
    if not optimizer:
        return 2  # several optimizers; what Adam keeps
    parameter = nn.Parameter(torch.zeros(1, 1))
    parameter.grad = torch.zeros(1, 1)
    built = OPTIMIZERS.build(dict(optimizer, params=[parameter]))
    built.step()
    return sum(isinstance(value, torch.Tensor) and value.shape == parameter.shape
               for value in built.state[parameter].values())


def gibibytes(size: int) -> str:
    """A size in the unit that file managers show."""
    return f'{size / 2**30:.2f} GiB'

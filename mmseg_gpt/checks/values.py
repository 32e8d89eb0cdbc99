"""Checks of settings: numbers, options of the backbone, parameter groups, the schedule."""

import math
from collections.abc import Iterator
from numbers import Real

import torch
from mmengine.config import Config
from torch import nn

from ..adapters import unwrap
from ..models import GatedPromptViT
from ..settings import look_up, type_name

# The least that a number of this name may be, wherever in its section it stands.
LEAST = dict(max_iters=1, max_epochs=1, val_interval=1, val_begin=0, batch_size=1, num_workers=0, num_tokens=1,
             crop_size=1, stride=1, img_size=1, patch_size=1, num_classes=1, window_batch=1)
NOT_WHOLE = dict(lr=0., weight_decay=0.)


def wrong_numbers(cfg: Config, loaders: tuple[str, ...]) -> list[str]:
    """Says which numbers of the config make no sense.

    Args:
        cfg: The whole config.
        loaders: The names of the data loaders that will be used.
    """
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
    if look_up(cfg, 'optim_wrapper.clip_grad.max_norm') == 0:
        problems.append('optim_wrapper.clip_grad.max_norm is 0, so that nothing would be learnt; set clip_grad to None')
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


def wrong_backbone(cfg: Config) -> list[str]:
    """Says which option of our backbone is out of its range; it is built without memory for its weights."""
    options = dict(look_up(cfg, 'model.backbone') or {})
    if type_name(options) != 'GatedPromptViT':
        return []
    del options['type']
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


def split_steps(cfg: Config) -> list[str]:
    """Returns warnings of steps that are longer than the run, or have checkpoints in them, which lack gradients."""
    counts, length = look_up(cfg, 'optim_wrapper.accumulative_counts') or 1, look_up(cfg, 'train_cfg.max_iters')
    if length and counts > length:
        return [f'optim_wrapper.accumulative_counts is {counts}, but the run has {length} iterations: it makes one '
                'step only']
    hook = look_up(cfg, 'default_hooks.checkpoint') or {}
    interval = hook.get('interval', -1)
    if hook.get('by_epoch', True) or interval <= 0 or interval % counts == 0:
        return []
    return [f'default_hooks.checkpoint.interval ({interval}) is not a multiple of '
            f'optim_wrapper.accumulative_counts ({counts}): a resumed run will lack the gradients of up to '
            f'{counts - 1} iterations']


def odd_schedule(cfg: Config) -> list[str]:
    """Returns warnings of learning rate schedules that end before or after training does."""
    schedulers, warnings = cfg.get('param_scheduler') or [], []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    for unit, by_epoch in (('max_iters', False), ('max_epochs', True)):
        until = look_up(cfg, f'train_cfg.{unit}')
        ends = [s.end for s in schedulers if s.get('by_epoch', True) == by_epoch and isinstance(s.get('end'), int)]
        if until and ends and max(ends) != until:
            warnings.append(f'param_scheduler ends at {max(ends):,}, but train_cfg.{unit} is {until:,}: the learning '
                            f'rate {"does not come to its end" if max(ends) > until else "stays as it is from there"}')
    return warnings

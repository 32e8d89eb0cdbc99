"""Checks of settings that are valid alone and make no sense together, or that would be ignored together.

Each function says what is wrong with one pair, or one small group, of settings. It names them, and what to do.
"""

import math
import os
from collections.abc import Iterable
from inspect import isclass, signature

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS, MODEL_WRAPPERS, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from ..datasets.pairs import error_line
from ..settings import look_up, type_name, unwrapped_datasets

PARTS = {'train_dataloader': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
         'val_dataloader': ('val_dataloader', 'val_cfg', 'val_evaluator'),
         'test_dataloader': ('test_dataloader', 'test_cfg', 'test_evaluator')}


def senseless_pairs(cfg: Config, loaders: tuple[str, ...]) -> list[str]:
    """Says which settings do not go together, in a run that uses these data loaders.

    Args:
        cfg: The whole config; its default scope must be the current one.
        loaders: The names of the data loaders that will be used, all of which the config has.
    """
    problems = ignored_settings(cfg) + endless_loaders(cfg, loaders) + corrupted_floats(cfg, loaders)
    if 'train_dataloader' in loaders and cfg.get('train_cfg'):
        checks = (wrong_loop, wrong_units, too_late, wrong_adapter_only, wrong_best, wrong_scaling, wrong_share,
                  wrong_crop)
        problems += [problem for check in checks for problem in check(cfg)]
    return problems


def missing_parts(cfg: Config, loaders: tuple[str, ...]) -> list[str]:
    """Says which settings must be there with others, as ``val_cfg`` and ``val_evaluator`` with ``val_dataloader``."""
    problems = []
    if not any(cfg.get(name) for name in ('train_cfg', 'val_cfg', 'test_cfg')):
        return []  # not the config of a run
    for loader in loaders:
        absent = [name for name in PARTS.get(loader, ()) if cfg.get(name) is None]
        if absent:
            problems.append(f'{loader} is there, but {" and ".join(absent)} '
                            f'{"is" if len(absent) == 1 else "are"} not: add what is missing, or set all of '
                            f'{", ".join(PARTS[loader])} to None')
    return problems


def class_of(registry: Registry, settings: object) -> type | None:
    """Returns the class that settings are for, or None where it cannot be told."""
    kind = settings.get('type') if isinstance(settings, dict) else type(settings)
    if isinstance(kind, str):
        try:
            with registry.switch_scope_and_registry(None) as current:
                kind = current.get(kind)
        except Exception:  # a module that fails; building it says why
            return None
    return kind if isclass(kind) else None


def is_for(registry: Registry, settings: object, kind: type) -> bool:
    """Returns whether settings are for ``kind`` or a class that inherits from it."""
    found = class_of(registry, settings)
    return found is not None and issubclass(found, kind)


def train_loop(cfg: Config) -> type | None:
    """Returns the class of the training loop, or None where it cannot be told."""
    loop = cfg.train_cfg
    if loop.get('type') is None:
        return {True: EpochBasedTrainLoop, False: IterBasedTrainLoop}.get(loop.get('by_epoch'))
    return class_of(LOOPS, loop)


def checkpoint_hook(cfg: Config) -> dict:
    """Returns the settings of the checkpoint hook; none of one that is built already."""
    hook = look_up(cfg, 'default_hooks.checkpoint')
    return hook if isinstance(hook, dict) else {}


def ignored_settings(cfg: Config) -> list[str]:
    """Refuses other runners, strategies and wrappers, which these tools would not use or cannot save."""
    problems = []
    if cfg.get('runner_type', 'Runner') != 'Runner' and isinstance(cfg.runner_type, (str, type)):
        problems.append(f'runner_type {type_name(dict(type=cfg.runner_type))} would be ignored: these tools have a '
                        'runner of their own. Leave it out')
    if isinstance(cfg.get('strategy'), dict) and type_name(cfg.strategy):
        problems.append(f'strategy {type_name(cfg.strategy)} would be ignored: several processes train with '
                        'DistributedDataParallel, which torchrun starts; a frozen ViT leaves little to divide among '
                        'them. Leave it out')
    wrapper = cfg.get('model_wrapper_cfg')
    kind = class_of(MODEL_WRAPPERS, wrapper) if wrapper else None
    # By its name: importing torch's class takes a second, and see compat.LeftOut.
    if kind and any(base.__name__ == 'FullyShardedDataParallel' for base in kind.__mro__):
        problems.append(f'model_wrapper_cfg.type is {type_name(wrapper)}, whose weights checkpoints could not hold: '
                        'use MMDistributedDataParallel, or leave model_wrapper_cfg out')
    if cfg.get('sync_bn') and not torch.cuda.is_available() and processes() > 1:
        problems.append('sync_bn needs GPUs, and there is none: leave it out')
    return problems


def endless_loaders(cfg: Config, loaders: Iterable[str]) -> list[str]:
    """Refuses samplers without an end where something waits for the end: an epoch, or a validation."""
    endless = [name for name in loaders if is_for(DATA_SAMPLERS, cfg[name].get('sampler'), InfiniteSampler)]
    problems = []
    for name in endless:
        if name != 'train_dataloader':
            problems.append(f'{name}.sampler is {type_name(cfg[name].sampler)}, which has no end, and so would the '
                            'evaluation have none: use DefaultSampler with shuffle=False')
        elif cfg.get('train_cfg') and issubclass(train_loop(cfg) or object, EpochBasedTrainLoop):
            problems.append(f'train_cfg counts epochs, but train_dataloader.sampler is {type_name(cfg[name].sampler)}, '
                            'which has no end: the first epoch would never be over. Use DefaultSampler with '
                            'shuffle=True, or IterBasedTrainLoop with max_iters')
    return problems


def wrong_loop(cfg: Config) -> list[str]:
    """Refuses options of ``train_cfg`` that its loop does not have, and a validation that begins after the end."""
    options, loop = dict(cfg.train_cfg), train_loop(cfg)
    if 'type' in options and 'by_epoch' in options:
        return ['train_cfg has both type and by_epoch: leave by_epoch out']
    if loop is None:
        return [] if options.get('type') else ['train_cfg needs a type, as IterBasedTrainLoop or EpochBasedTrainLoop']
    options = {name: value for name, value in options.items() if name not in ('type', 'by_epoch', '_scope_')}
    try:
        signature(loop).bind(runner=None, dataloader=None, **options)
    except TypeError as error:
        meant = {'max_epochs': ', as EpochBasedTrainLoop has', 'max_iters': ', as IterBasedTrainLoop has'}
        hint = next((f'{name}{words}' for name, words in meant.items() if name in options and name in str(error)), '')
        return [f'train_cfg does not go with its type, {loop.__name__}: {error}' + (f' ({hint})' if hint else '')]
    length = options.get('max_epochs', options.get('max_iters', math.inf))
    begin = options.get('val_begin', 1)
    if cfg.get('val_dataloader') and begin > length:
        return [f'train_cfg.val_begin is {begin}, but training ends at {length}: there would be no '
                'validation. Set a smaller val_begin, or val_dataloader, val_cfg and val_evaluator to None']
    return []


def wrong_units(cfg: Config) -> list[str]:
    """Refuses schedules and checkpoints that count epochs in a training that has none."""
    if not issubclass(train_loop(cfg) or object, IterBasedTrainLoop):
        return []
    problems, schedulers = [], cfg.get('param_scheduler') or []
    schedulers = [schedulers] if isinstance(schedulers, dict) and 'type' in schedulers else schedulers
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else ()):
        if isinstance(scheduler, dict) and scheduler.get('by_epoch', True) and not scheduler.get(
                'convert_to_iter_based'):
            problems.append(f'param_scheduler.{i} ({type_name(scheduler)}) counts epochs, but train_cfg counts '
                            'iterations: it would never make a step. Set its by_epoch=False, and begin and end in '
                            'iterations')
    hook = checkpoint_hook(cfg)
    if hook.get('interval', -1) > 0 and hook.get('by_epoch', True):
        problems.append(f'default_hooks.checkpoint.interval is {hook["interval"]} epochs, but train_cfg counts '
                        'iterations: only the last iteration would be saved. Set default_hooks.checkpoint.by_epoch='
                        'False')
    return problems


def too_late(cfg: Config) -> list[str]:
    """Refuses averages and checkpoints that would begin after the end of the run."""
    ends, problems = {unit: cfg.train_cfg.get(f'max_{unit}s') for unit in ('epoch', 'iter')}, []
    for i, hook in enumerate(cfg.get('custom_hooks') or []):
        for unit, end in ends.items() if is_for(HOOKS, hook, EMAHook) and isinstance(hook, dict) else ():
            begin = hook.get(f'begin_{unit}', 0)
            if begin and (end is None or begin > end):
                problems.append(f'custom_hooks.{i}.begin_{unit} is {begin}, but ' + (
                    f'train_cfg.max_{unit}s is {end}' if end else f'train_cfg does not count {unit}s') +
                    ': the averages would never begin')
    hook = checkpoint_hook(cfg)
    interval, end = hook.get('interval', -1), ends['epoch' if hook.get('by_epoch', True) else 'iter']
    never = interval <= 0 or interval > (end or interval)
    if never and not hook.get('save_last', True) and not hook.get('save_best'):
        problems.append(f'default_hooks.checkpoint.save_last is False and its interval, {interval}, is never reached: '
                        'nothing would be saved. Set a smaller interval, or leave save_last out')
    return problems


def wrong_adapter_only(cfg: Config) -> list[str]:
    """Refuses checkpoints without the ViT where its weights could not be found again."""
    hook, backbone = checkpoint_hook(cfg), look_up(cfg, 'model.backbone') or {}
    if not hook.get('adapter_only'):
        return []
    said = 'default_hooks.checkpoint.adapter_only=True does not go with '
    problems = []
    if any(is_for(HOOKS, each, EMAHook) for each in cfg.get('custom_hooks') or []):
        problems.append(f'{said}EMAHook in custom_hooks, whose averages hold the whole ViT: leave one of them out')
    if not backbone.get('frozen', True):
        problems.append(f'{said}model.backbone.frozen=False: a ViT that is trained must be saved. Leave adapter_only '
                        'out')
    elif not look_up(cfg, 'model.backbone.init_cfg.checkpoint'):
        problems.append(f'{said}a model.backbone.init_cfg without a pretrained file, from which the ViT would be read '
                        'again. Name one, or leave adapter_only out')
    return problems


def known_metrics(evaluators: object) -> set[str] | None:
    """Returns the names of all that evaluators measure, or None where they are not known."""
    names = set()
    for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators or []:
        prefix = evaluator.get('prefix')
        match type_name(evaluator):
            case 'IoUMetric' | 'PerClassIoUMetric':
                more = {'mIoU': ['mIoU', 'mAcc'], 'mDice': ['mDice', 'mAcc'],
                        'mFscore': ['mFscore', 'mPrecision', 'mRecall']}
                found = {'aAcc', *(name for kind in evaluator.get('iou_metrics', ['mIoU']) for name in
                                   more.get(kind, ()))}
            case 'Accuracy' if evaluator.get('thrs', 0.) == 0.:
                topk = evaluator.get('topk', (1, ))
                found = {f'top{k}' for k in ([topk] if isinstance(topk, int) else topk)}
                prefix = prefix or 'accuracy'
            case _:
                return None
        names |= {f'{prefix}/{name}' if prefix else name for name in found}
    return names


def default_best(cfg: Config) -> str | None:
    """Returns what the best checkpoint is kept by where the config does not say: mIoU.

    It is None where the config says it (``save_best=None`` keeps none), where mIoU is not measured in training, or once
    only, at the end.
    """
    if 'save_best' in checkpoint_hook(cfg) or not all(cfg.get(name) for name in ('train_cfg', 'val_dataloader')):
        return None
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.get('max_epochs') or 1
    several = cfg.train_cfg.get('val_interval', 1) < length
    return 'mIoU' if several and 'mIoU' in (known_metrics(cfg.get('val_evaluator')) or ()) else None


def wrong_best(cfg: Config) -> list[str]:
    """Refuses to wait for the best value of something that no validation measures."""
    hook = checkpoint_hook(cfg)
    asked = {'default_hooks.checkpoint.save_best': hook.get('save_best')}
    for i, each in enumerate(cfg.get('custom_hooks') or []):
        if type_name(each) == 'EarlyStoppingHook' and isinstance(each, dict):
            asked[f'custom_hooks.{i}.monitor'] = each.get('monitor')
    problems, known = [], known_metrics(cfg.get('val_evaluator'))
    for key, metrics in asked.items():
        for metric in [metrics] if isinstance(metrics, str) else metrics or []:
            if not cfg.get('val_dataloader'):
                problems.append(f'{key} is {metric}, but there is no val_dataloader to measure it on')
            elif known is not None and metric not in known | {'auto'}:
                problems.append(f'{key} is {metric}, which val_evaluator does not measure: it measures '
                                f'{", ".join(sorted(known))}')
    if not problems and hook.get('save_best'):
        options = {name: hook[name] for name in ('save_best', 'rule', 'greater_keys', 'less_keys') if name in hook}
        try:
            CheckpointHook(**options)
        except Exception as error:
            problems.append(f'default_hooks.checkpoint.save_best does not go with its rule: {error_line(error)}')
    return problems


def wrong_scaling(cfg: Config) -> list[str]:
    """Refuses to scale the learning rate where it is not known from which batch to which."""
    scaling = cfg.get('auto_scale_lr') or {}
    if not scaling.get('enable'):
        return []
    if not scaling.get('base_batch_size'):
        return ['auto_scale_lr.enable is True, but base_batch_size, the batch that the learning rate is meant for, is '
                'not there: add auto_scale_lr.base_batch_size']
    if cfg.train_dataloader.get('batch_sampler'):
        return ['auto_scale_lr does not go with train_dataloader.batch_sampler, whose batches MMEngine does not know: '
                'set the learning rate yourself, and auto_scale_lr.enable=False']
    return []


def wrong_share(cfg: Config) -> list[str]:
    """Refuses a batch that the processes of this run cannot share."""
    batch, number = cfg.train_dataloader.get('batch_size', 1), processes()
    if cfg.get('launcher', 'none') == 'none' or not isinstance(batch, int) or batch % number == 0:
        return []
    return [f'the batch of {batch} images cannot be divided among {number} processes: train_dataloader.batch_size is '
            'that of all of them together; use a multiple of their number']


# Transforms behind a crop that may change its size, or crop for a reason of their own.
RESIZING = ('Resize', 'Pad', 'Crop', 'Choice', 'Apply', 'Mosaic', 'Rotate', 'Affine', 'Albu')


def wrong_crop(cfg: Config) -> list[str]:
    """Refuses crops of the training that are larger than what the model pads to, or far smaller.

    ``data_preprocessor.size`` follows from ``model.crop_size``, as do the position embedding and the sliding windows,
    which would then be those of other images.
    """
    model, pipeline = cfg.get('model') or {}, look_up(cfg, 'train_dataloader.dataset.pipeline') or []
    size = look_up(model, 'data_preprocessor.size') or look_up(cfg, 'data_preprocessor.size')
    names = [type_name(each) if isinstance(each, dict) else '' for each in pipeline]
    crop = next((i for i in reversed(range(len(names))) if names[i].endswith('RandomCrop')), None)
    if not size or crop is None or any(word in name for name in names[crop + 1:] for word in RESIZING):
        return []
    cropped = pipeline[crop].get('crop_size')
    cropped = (cropped, cropped) if isinstance(cropped, int) else cropped
    if not is_size(cropped) or not is_size(size):
        return []
    if not any(side > most or 2 * side < most for side, most in zip(cropped, size)):
        return []
    return [f'train_dataloader.dataset.pipeline.{crop}.crop_size is {tuple(cropped)}, but the model is made for '
            f'{tuple(size)} (data_preprocessor.size, from model.crop_size): make them equal. In a config, '
            'crop_size=_base_.crop_size takes that of the base']


def corrupted_floats(cfg: Config, loaders: Iterable[str]) -> list[str]:
    """Refuses PhotoMetricDistortion of float images: it takes their colours for 0 to 1, and makes them gray."""
    problems = []
    for name in loaders:
        for source in unwrapped_datasets(cfg[name].get('dataset') or {}):
            steps = [step for step in source.get('pipeline') or [] if isinstance(step, dict)]
            names = [type_name(step) for step in steps]
            loads = any(step.get('to_float32') and type_name(step).startswith('Load') for step in steps)
            if loads and 'PhotoMetricDistortion' in names:
                problems.append(f'{name}: PhotoMetricDistortion would destroy the colours of images loaded with '
                                'to_float32=True: leave to_float32 out')
    return problems


def is_size(value: object) -> bool:
    """Returns whether a value is a height and a width in pixels."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value)


def processes() -> int:
    """Returns the number of processes that torchrun, Slurm or MPI have started."""
    sizes = (os.environ.get(name) for name in ('WORLD_SIZE', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE'))
    return int(next((size for size in sizes if size), 1))

"""Checks that a checkpoint is evaluated with what it was trained with, which weights alone do not tell."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..adapters import unwrap
from ..checkpoints import CheckpointError
from ..checkpoints.read import settings_in
from ..models import BiasTunedViT, GatedPromptViT, LoRAViT
from ..settings import type_name, unwrapped_datasets
from ..wording import listed

# What a file may name: no other object is built from what stands in it.
KINDS = {kind.__name__: kind for kind in (GatedPromptViT, LoRAViT, BiasTunedViT)}


def check_evaluated(model: nn.Module, cfg: Config, checkpoint: dict, path: str | Path,
                    classes: Sequence[str] | None = None) -> None:
    """Refuses a checkpoint that was trained with another backbone or other classes, or on what it is to be tested on.

    It warns of images that are normalised otherwise than in training, and of other data.

    Args:
        model: The model that has been filled, possibly wrapped.
        cfg: The config of the evaluation.
        checkpoint: What the file holds.
        path: The file's name, for messages.
        classes: Names of the classes of the dataset, if they are known.

    Raises:
        CheckpointError: the message names what differs.
    """
    check_backbone(model, checkpoint, path)
    check_names(classes, checkpoint, path)
    check_pixels(cfg, checkpoint, path)
    check_data(cfg, checkpoint, path)


def check_names(classes: Sequence[str] | None, checkpoint: dict, path: str | Path, strict: bool = True) -> None:
    """Refuses classes in another order than those of a checkpoint, or quite other ones; warns of other names.

    Args:
        classes: Names of the classes of the dataset; None if they are not known.
        checkpoint: What the file holds; it passes where it does not say its classes.
        path: The file's name, for messages.
        strict: Whether to refuse at all; a training may begin with the weights of other classes, and is only warned.

    Raises:
        CheckpointError: the message shows the classes of both where they differ.
    """
    meta = checkpoint.get('meta')
    old = (meta.get('dataset_meta') or {}).get('classes') if isinstance(meta, dict) else None
    if not old or not classes or list(old) == list(classes):
        return
    other = [(i, was, now) for i, (was, now) in enumerate(zip(old, classes)) if was != now]
    said = f'{path} was trained on {len(old)} classes, and the dataset of this config has {len(classes)}: ' + (listed(
        [f'number {i} was {was!r} and is {now!r}' for i, was, now in other], 4) or 'the first are the same')
    moved = any(now in old or was in classes for _, was, now in other)
    if strict and (moved or len(other) == len(old) or len(old) != len(classes)):
        raise CheckpointError(f'{said}. Give the dataset the classes that it was trained on, in their order')
    print_log(f'{said}. If these are not the same classes by other names, the ' + (
        'scores are wrong' if strict else 'heads begin with weights of other classes'), 'current', logging.WARNING)


def check_backbone(model: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Refuses weights of a backbone that computes something else than that of ``model``.

    Pooling, blocks to be read, the first block with prompts, soft or hard gates, the number of attention heads, the
    range of temperatures, the factors of updates, and which side of a grid of positions is the longer, leave no trace
    in the names and shapes of weights. If they differed, the answers would be wrong, and nobody would be told.

    Args:
        model: The model that has been filled, possibly wrapped.
        checkpoint: What the file holds; it is not refused where it does not say how it was trained.
        path: The file's name, for messages.

    Raises:
        CheckpointError: the message names what differs.
    """
    backbone = getattr(unwrap(model), 'backbone', None)
    trained = settings_in(checkpoint).get('model', {})
    options = dict(trained.get('module', trained).get('backbone') or {})
    if not isinstance(backbone, GatedPromptViT) or (kind := KINDS.get(type_name(options))) is None:
        return
    for name in ('type', 'init_cfg'):
        options.pop(name, None)
    with torch.device('meta'):
        old, new = without_trace(kind(**options)), without_trace(backbone)
    changed = [f'  {name} was {old[name]} and is {new[name]}' for name in old if old[name] != new[name]]
    if changed:
        raise CheckpointError(f'{path} was trained with another backbone than that of this config:\n' +
                              '\n'.join(changed) + '\nUse the config the checkpoint was trained with')


def without_trace(backbone: GatedPromptViT) -> dict[str, object]:
    """Returns what decides a backbone's answers, but cannot be seen in the names and shapes of its weights."""
    return dict(
        grid=None if backbone.pos_embed is None else backbone.grid,  # 30 x 40 positions look like 40 x 30
        out_type=backbone.out_type, out_indices=backbone.out_indices, start_block=backbone.start_block,
        prompt=type(backbone.prompt).__name__, num_heads=backbone.arch['num_heads'],
        in_channels=backbone.in_channels,  # adapter-only files do not hold the patch embedding
        temperature_range=backbone.temperature_range, rotary=backbone.rotary, norm_eps=backbone.blocks[0].norm1.eps,
        lora_alpha=(backbone.lora or {}).get('alpha'), adapter_scale=(backbone.adapter or {}).get('scale'))


def check_pixels(cfg: Config, checkpoint: dict, path: str | Path) -> None:
    """Warns where images are normalised by other numbers than in training, or have their channels in another order.

    Args:
        cfg: The config of the evaluation.
        checkpoint: What the file holds.
        path: The file's name, for messages.
    """
    old, new = (normalisation(settings) for settings in (settings_in(checkpoint), cfg))
    if old and new and old != new:
        print_log(f'{path} was trained with data_preprocessor {old}, and is evaluated with {new}: the scores may be '
                  'wrong', logger='current', level=logging.WARNING)


def normalisation(settings: Config | dict) -> dict[str, object]:
    """Returns how a config's data preprocessor normalises pixels, and whether it swaps red and blue.

    Args:
        settings: The config.

    Returns:
        dict: ``mean``, ``std`` and ``swapped``; empty if the config has no settings of a preprocessor.
    """
    model = settings.get('model', {})
    preprocessor = model.get('module', model).get('data_preprocessor') or settings.get('data_preprocessor')
    if not isinstance(preprocessor, dict):
        return {}
    swapped = any(preprocessor.get(name) for name in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'))
    return {name: list(preprocessor.get(name) or ()) for name in ('mean', 'std')} | dict(swapped=swapped)


def check_data(cfg: Config, checkpoint: dict, path: str | Path) -> None:
    """Refuses to measure on images that were trained on, and warns where the data is that of another task.

    Args:
        cfg: The config of the evaluation.
        checkpoint: What the file holds.
        path: The file's name, for messages.

    Raises:
        CheckpointError: ``--search-split`` was given for a run that was trained without it.
    """
    trained = (settings_in(checkpoint).get('train_dataloader') or {}).get('dataset')
    tested = (cfg.get('test_dataloader') or {}).get('dataset')
    if not trained or not tested:
        return
    old, new = (next(unwrapped_datasets(dataset)) for dataset in (trained, tested))
    if (old.get('split'), new.get('split')) == ('train800val200', 'val200'):
        raise CheckpointError(f'{path} was trained on the 200 validation images too: test it without --search-split, '
                              'or train with it')
    if data(old) != data(new):
        print_log(f'{path} was trained on {" in ".join(data(old))}, and is evaluated on {" in ".join(data(new))}',
                  logger='current', level=logging.WARNING)


def data(dataset: dict) -> tuple[str, str]:
    """Returns the type of a dataset and the last part of its folder, which stays the same when data is moved."""
    return type_name(dataset), Path(dataset.get('data_root') or '').name

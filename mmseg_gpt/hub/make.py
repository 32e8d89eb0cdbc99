"""Makes what is shared of a model: an adapter file that holds nothing of the ViT, and a card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor

from .. import __version__
from ..adapters import frozen_source, frozen_state
from ..apis.task import ServedTask, load_task
from ..checkpoints import CheckpointError, address_of, is_remote
from ..checkpoints.adapter_file import FORMAT, SCOPES, write_adapter
from ..checkpoints.hub import ADAPTER, CARD
from ..checkpoints.plain_config import NotPlain, plain
from ..datasets import label_rule
from ..engine.shared_config import shared_config
from ..files import replacing
from ..settings import unwrapped_datasets
from .card import card

PIXELS = (96, 128)  # height and width of the drawn image by which file and model are compared


class PublishError(ValueError):
    """A model cannot be shared. The message says why, and what to do."""


@dataclass(frozen=True)
class SharedFiles:
    """What was made of a model to be shared.

    Attributes:
        adapter: The adapter file.
        card: The model card, Markdown.
        trained: Number of weights in the file.
        whole: Whether the ViT is in it, because it was trained.
    """
    adapter: Path
    card: Path
    trained: int
    whole: bool


def publish(name: str, task: ServedTask, folder: Path, results: Mapping = {}, licence: str | None = None,
            whole: bool = False) -> SharedFiles:
    """Writes adapter file and card of a model into a folder, and checks that the file predicts as the model does.

    Args:
        name: Owner and name on the hub, for the card.
        task: The model, from ``load_task(..., frozen=False)``, on the CPU.
        folder: The folder, which is made if need be.
        results: What was measured, see :func:`mmseg_gpt.hub.results.results_beside`.
        licence: The licence's identifier on the hub, such as 'apache-2.0'.
        whole: Whether to write a model whose ViT was trained, with its ViT.

    Raises:
        PublishError: the ViT was trained and ``whole`` is not set, or the other way round; or the config names what a
            shared one cannot.
        CheckpointError: the frozen ViT is not the one in its pretrained file.
    """
    check_whole(task, whole)
    record = record_of(task, results)
    frozen = frozen_state(task.model)
    state = {key: value for key, value in task.model.state_dict().items() if key not in frozen}
    folder.mkdir(parents=True, exist_ok=True)
    published = SharedFiles(folder / ADAPTER, folder / CARD, sum(v.numel() for v in state.values()), whole)
    try:
        write_adapter(published.adapter, state, record)
        check_same(task, published.adapter)
    except ValueError as error:
        published.adapter.unlink(missing_ok=True)
        raise PublishError(f'this model cannot be shared: {error}') from error
    with replacing(published.card) as unfinished:
        unfinished.write_text(card(name, record, state, published.adapter.stat().st_size, licence), encoding='utf-8')
    return published


def check_whole(task: ServedTask, whole: bool) -> None:
    """Refuses a model whose ViT was trained, unless it is to be shared as a whole.

    Raises:
        PublishError: as said; the message has the size.
    """
    size = sum(value.numel() * value.element_size() for value in task.model.state_dict().values()) / 2**20
    if not task.vit.frozen and not whole:
        raise PublishError('the ViT of this model was trained, so the model is nothing without it, and no other task '
                           f'can share it. --whole pushes all of it, {size:,.0f} MiB')
    if task.vit.frozen and whole:
        raise PublishError('--whole is for models whose ViT was trained; that of this one is frozen, so only what was '
                           'trained is pushed')


def record_of(task: ServedTask, results: Mapping) -> dict:
    """Returns the record of an adapter file.

    Raises:
        PublishError: the config names what a shared one cannot.
        CheckpointError: the frozen ViT is not the one in its pretrained file.
    """
    cfg = task.cfg
    scope = cfg.get('default_scope')
    task_of = {value: key for key, value in SCOPES.items()}
    if scope not in task_of:
        raise PublishError(f'default_scope is {scope}: only models of mmseg and of mmpretrain can be shared')
    pipeline = next(unwrapped_datasets(cfg.test_dataloader.dataset)).pipeline
    parts = dict(model=cfg.model, data_preprocessor=cfg.get('data_preprocessor'), test_pipeline=pipeline,
                 tta_pipeline=cfg.get('tta_pipeline'), tta_model=cfg.get('tta_model'))
    try:
        config = {name: plain(settings, name) for name, settings in parts.items() if settings}
        json.dumps(config, allow_nan=False)
    except (NotPlain, TypeError, ValueError) as error:
        raise PublishError(f'this model cannot be shared: {error}. Its config may name the models, heads and '
                           'transforms of mmseg_gpt/checkpoints/plain_config.py') from error
    palette = None if task.palette is None else [[int(part) for part in colour] for colour in task.palette]
    return dict(format=FORMAT, made_by=f'mmseg_gpt {__version__}', task=task_of[scope], config=config,
                classes=list(task.classes) if task.classes else None, palette=palette if task.classes else None,
                reduce_zero_label=reduces_zero(task), vit=vit_of(task) if task.vit.frozen else None,
                results=dict(results))


def vit_of(task: ServedTask) -> dict:
    """Returns which ViT a model needs: file, address if it has a public one, and SHA-256 of file and weights.

    Raises:
        PublishError: the file of the ViT is not there, or is another one.
    """
    try:
        source = frozen_source(task.model, 'a model that is shared without its ViT')
    except CheckpointError as error:
        raise PublishError(f'{error}. Give the file of the ViT on which it was trained by --vit') from error
    init_cfg = task.vit.init_cfg
    checkpoint = str(init_cfg['checkpoint'])
    address = checkpoint if is_remote(checkpoint) else address_of(checkpoint)
    return dict(file=source['source'], address=address if address and is_public(address) else None,
                sha256=source['sha256'], weights_sha256=source['weights_sha256'], pos_embed=source['pos_embed'],
                key=init_cfg.get('key'))


def is_public(address: str) -> bool:
    """Says whether an address may be told: it is one, and holds no password and no signature."""
    parts = urlsplit(address)
    return ' ' not in address and not (parts.query or parts.fragment or parts.username or parts.password)


def reduces_zero(task: ServedTask) -> bool:
    """Says whether the label files of the task's test data number the classes from 1."""
    cfg = task.cfg
    source = next(unwrapped_datasets(cfg.test_dataloader.dataset))
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            return bool(label_rule(DATASETS.build(dict(source, lazy_init=True, pipeline=[]))).reduce_zero_label)
    except Exception:  # datasets may need files that are elsewhere
        return bool(source.get('reduce_zero_label', False))


def check_same(task: ServedTask, adapter: Path) -> None:
    """Refuses an adapter file whose model does not have the weights and the answers of another, bit by bit.

    Raises:
        ValueError: it differs, or cannot be read back.
    """
    cfg = shared_config(adapter)
    if task.vit.frozen:
        cfg.model.backbone.init_cfg = dict(task.vit.init_cfg)
    other = load_task('the adapter file', cfg, adapter, frozen=False)
    states = [each.model.state_dict() for each in (task, other)]
    if states[0].keys() != states[1].keys() or not all(torch.equal(states[0][k], states[1][k]) for k in states[0]):
        raise ValueError('what is read back from the file differs from the model')
    pixels = np.random.default_rng(0).integers(0, 256, (*PIXELS, task.vit.in_channels), dtype=np.uint8)
    answers = [answers_of(each, pixels) for each in (task, other)]
    if not all(torch.equal(one, two) for one, two in zip(*answers, strict=True)):
        raise ValueError('read back from the file, the model answers otherwise: does its config build something that '
                         'depends on more than its settings?')


@torch.no_grad()
def answers_of(task: ServedTask, pixels: np.ndarray) -> list[Tensor]:
    """Returns what a model computes of an image (H, W, C): its input, its raw outputs and its prediction."""
    prepared = task.transform(dict(img=pixels, img_path=None, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2]))
    batch = {key: [prepared[key]] for key in ('inputs', 'data_samples')}
    inputs = task.model.data_preprocessor(batch, False)['inputs']
    raw = task.model(inputs, mode='tensor')
    answer = task.predict([prepared])[0]
    raw = [raw] if isinstance(raw, Tensor) else list(raw)
    return [inputs, *raw, answer.pred_sem_seg.data if 'pred_sem_seg' in answer else answer.pred_score]

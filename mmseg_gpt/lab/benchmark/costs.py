"""Costs of a variant that need no clock: live memory, bytes kept for backward, FLOPs, traffic, checkpoint sizes.

They are counted on fake tensors, so the full size takes seconds and no memory.
"""

from dataclasses import replace

import torch
from mmengine.config import Config
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from .flops import FlopCounter, Traffic
from .memory import fake_tensors, kept_bytes, parts, peak_bytes
from .variants import ADAPTERS, Sizes, Variant, build
from .work import Evaluation, TrainingStep, make_batch

SLOPE = (2, 4)  # factors of the batch between which memory grows evenly, which it need not do from the first image on
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


def count_costs(variant: Variant, cfg: Config, sizes: Sizes, evaluation: bool = True) -> dict:
    """Counts the costs of a variant on a CPU; a compiled one is counted before it is compiled.

    If its code needs the values of tensors, which fake ones do not have, it runs on real ones, and that is printed.

    Returns:
        dict: The results of :func:`count_training` and, if ``evaluation``, of :func:`count_evaluation`; and
        ``tensors``, for each of the two 'fake' or the reason why they were real.
    """
    costs, tensors = {}, {}
    for what, count in (('train', count_training), ('eval', count_evaluation))[:2 if evaluation else 1]:
        model = build(variant.model, cfg, sizes)  # outside, because mmsegmentation's ViT computes when it is built
        tensors[what] = 'fake'
        try:
            with fake_tensors():
                found = count(variant, model.to_empty(device='cpu'), cfg, sizes)
        except NEEDS_VALUES as error:
            tensors[what] = f'real, because fake ones do not work: {error}'
            print(f'{variant.name}, {what}: counted on tensors that are {tensors[what]}', flush=True)
            found = count(variant, build(variant.model, cfg, sizes), cfg, sizes)
        costs.update(found)
    return dict(costs, tensors=tensors)


def count_training(variant: Variant, model: nn.Module, cfg: Config, sizes: Sizes) -> dict:
    """Counts training steps, on fake or real tensors, whichever ``model`` has.

    Returns:
        dict: ``train``, the result of :func:`count_work` for the batch of ``sizes``; ``slope``, bytes of live memory
        for each further image; ``kept``, bytes kept for the backward for each further image, by part; ``checkpoint``,
        bytes by content.
    """
    step = TrainingStep(model, cfg, make_batch(sizes), variant.bf16)
    step()  # makes the momentum, which exists in every step but the first
    peaks, kept = [], []
    for factor in SLOPE:
        step.batch = make_batch(replace(sizes, batch=factor * sizes.batch))
        peaks.append(peak_bytes(step, step.tensors()))
        kept.append(kept_bytes(parts(model), step.loss, step.tensors())[1])
    more = (SLOPE[1] - SLOPE[0]) * sizes.batch
    step.batch = make_batch(sizes)
    return dict(
        train=count_work(step), slope=(peaks[1] - peaks[0]) // more,
        kept={part: (size - kept[0][part]) // more for part, size in kept[1].items()},
        checkpoint=checkpoint_bytes(model))


def count_evaluation(variant: Variant, model: nn.Module, cfg: Config, sizes: Sizes) -> dict:
    """Counts the evaluation of an image at one scale; ``eval`` is the result of :func:`count_work`."""
    return dict(eval=count_work(Evaluation(model, sizes, torch.device('cpu'), variant.bf16)))


def count_work(work: TrainingStep | Evaluation) -> dict[str, int]:
    """Counts one call of ``work``: ``peak`` and ``traffic`` in bytes, ``flops`` and ``recomputed_flops``."""
    with FlopCounter() as counter, Traffic() as traffic:
        peak = peak_bytes(work, work.tensors())
    needed, recomputed = counter.flops
    return dict(peak=peak, flops=needed, recomputed_flops=recomputed, traffic=traffic.bytes)


def checkpoint_bytes(model: nn.Module) -> dict[str, int]:
    """Counts bytes of the whole state dict, of its trained part with buffers, and of prompts, gates, temperatures."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    # Files hold float32 also where a frozen ViT is kept in half precision.
    sizes = {name: t.numel() * max(4, t.element_size()) for name, t in model.state_dict().items()}
    return dict(
        whole=sum(sizes.values()),
        trained=sum(size for name, size in sizes.items() if name not in frozen),
        adapters=sum(size for name, size in sizes.items() if name.removeprefix('backbone.').startswith(ADAPTERS)))

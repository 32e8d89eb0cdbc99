"""What one variant costs, without a clock: live memory, bytes kept for backward, FLOPs, traffic, checkpoint sizes.

Counted on fake tensors, so the full size takes seconds and no memory.
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
from .memory import fake_tensors, parts, peak_bytes, saved_bytes
from .variants import ADAPTERS, Sizes, Variant, build
from .work import Evaluation, TrainingStep, make_batch

BATCHES = (2, 4)  # two batches whose difference is the cost of images, without what does not depend on the batch
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


def count_costs(variant: Variant, cfg: Config, sizes: Sizes, device: torch.device) -> dict:
    """Counts what a variant costs; a compiled one is counted as it is before it is compiled.

    Should its code ask for the values of tensors, which fake ones have not, it is run on real ones on the CPU, and
    that is printed.

    Returns:
        dict: ``tensors``, 'fake' or why they were real; ``answered``, how many questions about values
        :class:`.memory.WithoutValues` answered; ``train``, ``eval``, ``saved``, ``slope`` and ``checkpoint`` of
        :func:`count`.
    """
    model = build(variant.model, cfg, sizes)  # outside, since mmsegmentation's ViT computes something when it is built
    try:
        with fake_tensors() as values:
            costs = count(variant, model.to_empty(device=device), cfg, sizes, device)
            return dict(costs, tensors='fake', answered=values.answers)
    except NEEDS_VALUES as error:
        reason = f'real, because fake ones do not work: {error}'
        print(f'{variant.name}: counted on tensors that are {reason}', flush=True)
        cpu = torch.device('cpu')
        return dict(count(variant, build(variant.model, cfg, sizes), cfg, sizes, cpu), tensors=reason, answered=0)


def count(variant: Variant, model: nn.Module, cfg: Config, sizes: Sizes, device: torch.device) -> dict:
    """Counts on whatever tensors ``model`` has.

    Returns:
        dict: ``train`` at the batch of ``sizes`` and ``eval`` of one image, each with ``peak`` and ``traffic`` in
        bytes, ``flops`` and ``recomputed_flops``; ``slope``, bytes of live memory for each further training image;
        ``saved``, bytes kept for the backward of an image, by part; ``checkpoint``, bytes by content.
    """
    train = TrainingStep(model, cfg, make_batch(sizes, device=device), variant.bf16)
    train()  # from now on there is momentum
    peaks = []
    for batch in BATCHES:
        train.batch = make_batch(replace(sizes, batch=batch), device=device)
        peaks.append(peak_bytes(train, train.tensors()))
    saved = {part: size // BATCHES[-1] for part, size in saved_bytes(parts(model), train.loss).items()}
    train.batch = make_batch(sizes, device=device)
    return dict(
        train=count_work(train), eval=count_work(Evaluation(model, sizes, device, variant.bf16)), saved=saved,
        slope=(peaks[1] - peaks[0]) // (BATCHES[1] - BATCHES[0]), checkpoint=checkpoint_bytes(model))


def count_work(work: TrainingStep | Evaluation) -> dict[str, int]:
    """Live memory, FLOPs and traffic of one call of ``work``."""
    with FlopCounter() as counter, Traffic() as traffic:
        peak = peak_bytes(work, work.tensors())
    needed, recomputed = counter.flops
    return dict(peak=peak, flops=needed, recomputed_flops=recomputed, traffic=traffic.bytes)


def checkpoint_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of the whole state dict, of what is trained (with buffers), and of prompts, gates and temperatures."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    sizes = {name: t.numel() * t.element_size() for name, t in model.state_dict().items()}
    return dict(
        whole=sum(sizes.values()),
        trained=sum(size for name, size in sizes.items() if name not in frozen),
        adapters=sum(size for name, size in sizes.items() if name.removeprefix('backbone.').startswith(ADAPTERS)))

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
from .work import Batch, Evaluation, TrainingStep, make_batch

CPU = torch.device('cpu')
SLOPE = (2, 4)  # times the batch: two batches where memory grows evenly, which it need not do from the first image on
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


def count_costs(variant: Variant, cfg: Config, sizes: Sizes, step_only: bool = False) -> dict:
    """Counts what a variant costs on a CPU; a compiled one is counted as it is before it is compiled.

    Should its code ask for the values of tensors, which fake ones have not, it is run on real ones, and that is
    printed.

    Returns:
        dict: ``tensors``, 'fake' or why they were real; ``answered``, how many questions about values
        :class:`.memory.WithoutValues` answered; and what :func:`count` returns.
    """
    model = build(variant.model, cfg, sizes)  # outside, since mmsegmentation's ViT computes something when it is built
    try:
        with fake_tensors() as values:
            costs = count(variant, model.to_empty(device='cpu'), cfg, sizes, step_only)
            return dict(costs, tensors='fake', answered=values.answers)
    except NEEDS_VALUES as error:
        reason = f'real, because fake ones do not work: {error}'
        print(f'{variant.name}: counted on tensors that are {reason}', flush=True)
        return dict(count(variant, build(variant.model, cfg, sizes), cfg, sizes, step_only), tensors=reason, answered=0)


def count(variant: Variant, model: nn.Module, cfg: Config, sizes: Sizes, step_only: bool = False) -> dict:
    """Counts on whatever tensors ``model`` has.

    Returns:
        dict: ``train`` at the batch of ``sizes``, with ``peak`` and ``traffic`` in bytes, ``flops`` and
        ``recomputed_flops``. Unless ``step_only``: ``eval`` of one image, likewise; ``slope``, bytes of live memory for
        each further image; ``saved``, bytes kept for the backward of an image, by part; ``checkpoint``, bytes by
        content.
    """
    def images(factor: int) -> Batch:
        return make_batch(replace(sizes, batch=factor * sizes.batch))

    step, loss = TrainingStep(model, cfg, images(1 if step_only else SLOPE[1]), variant.bf16), []
    saved = saved_bytes(parts(model), lambda: loss.append(step.loss()))
    loss.pop().backward()
    step.optimizer.step()  # from now on there is momentum, as there is in any step but the first
    if step_only:
        return dict(train=count_work(step))
    peaks = []
    for factor in SLOPE:
        step.batch = images(factor)
        peaks.append(peak_bytes(step, step.tensors()))
    step.batch = images(1)
    return dict(
        train=count_work(step), eval=count_work(Evaluation(model, sizes, CPU, variant.bf16)),
        slope=(peaks[1] - peaks[0]) // ((SLOPE[1] - SLOPE[0]) * sizes.batch), checkpoint=checkpoint_bytes(model),
        saved={part: size // (SLOPE[1] * sizes.batch) for part, size in saved.items()})


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

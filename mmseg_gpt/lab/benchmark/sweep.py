"""How cost grows with the image, the prompts, the batch and the depth."""

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from mmengine.config import Config
from mmengine.utils import ProgressBar

from ...environment import available_bytes
from .costs import count_costs
from .timing import measure, summarise
from .variants import Sizes, build, parse_variant
from .work import TrainingStep, make_batch

AXES = dict(image=(256, 384, 512, 768, 1024), prompts=(1, 10, 50, 100, 200), batch=(1, 2, 4, 8), depth=(3, 6, 9, 12))


def sweep(variants: Sequence[str], cfg: Config, sizes: Sizes, axes: dict[str, Sequence[int]], device: torch.device,
          rounds: int = 3, timed: bool = True) -> dict:
    """Measures the costs of a training step while one size at a time is changed.

    Args:
        variants: Names of the variants to compare.
        cfg: The config of our model.
        sizes: The sizes that do not change.
        axes: Values of each size that changes, by its name.
        device: Device on which time is measured.
        rounds: Measurements of each time, whose median counts.
        timed: Whether to measure time at all.

    Returns:
        dict: A list of points by axis, each with ``value`` and ``costs``: ``peak``, ``flops`` and ``seconds`` by
        variant. ``seconds`` is None if it was not measured, also because the memory would not suffice.
    """
    bar = ProgressBar(sum(map(len, axes.values())), file=sys.stderr)
    points = {axis: [] for axis in axes}
    for axis, values in axes.items():
        for value in values:
            changed = replace(sizes, **{axis: value})
            costs = {name: count_costs(parse_variant(name), cfg, changed, evaluation=False)['train']
                     for name in variants}
            seconds = step_seconds(costs, cfg, changed, device, rounds) if timed else {}
            points[axis].append(dict(value=value, costs={
                name: dict(peak=cost['peak'], flops=cost['flops'], seconds=seconds.get(name))
                for name, cost in costs.items()}))
            bar.update()
    print(file=sys.stderr)
    return points


def step_seconds(costs: dict[str, dict], cfg: Config, sizes: Sizes, device: torch.device,
                 rounds: int) -> dict[str, float]:
    """Measures the median seconds of those variants whose steps fit into memory together, with a third to spare."""
    steps, free = {}, available_bytes(device)
    for name, cost in sorted(costs.items(), key=lambda item: item[1]['peak']):
        if 1.3 * cost['peak'] < free:
            variant = parse_variant(name)
            model = build(variant.model, cfg, sizes).to(device)
            steps[name] = TrainingStep(model, cfg, make_batch(sizes, device=device), variant.bf16)
    summary = summarise(measure(steps, rounds, 1, 0, device), '') if steps else {}
    steps.clear()
    gc.collect()
    return {name: entry['median'] for name, entry in summary.items()}

"""The growth of costs with the image, the prompts, the batch and the depth: numbers, and a figure of them."""

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.utils import ProgressBar

from ...environment import available_bytes
from .costs import count_costs
from .timing import measure, summarise
from .variants import Sizes, build, parse_variant
from .work import TrainingStep, make_batch

AXES = dict(image=(256, 384, 512, 768, 1024), prompts=(1, 10, 50, 100, 200), batch=(1, 2, 4, 8), depth=(3, 6, 9, 12))
LABELS = dict(image='side of the image (pixels)', prompts='prompts', batch='batch (images)', depth='depth (blocks)')
COSTS = dict(seconds='time of a step (s)', peak='peak of live memory (GiB)', flops='FLOPs of a step (TFLOP)')
UNITS = dict(seconds=1., peak=2**30, flops=1e12)


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


def plot(points: dict, path: str | Path) -> None:
    """Draws a row for each cost and a column for each axis.

    Args:
        points: The result of :func:`sweep`.
        path: File to write; its suffix decides the format.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    rows = [cost for cost in COSTS if any(numbers(values, variant, cost) for values in points.values()
                                          for variant in values[0]['costs'])]
    figure, axes = plt.subplots(len(rows), len(points), figsize=(3.4 * len(points), 2.7 * len(rows)), squeeze=False,
                                layout='constrained')
    for row, cost in zip(axes, rows):
        for axis, (name, values) in zip(row, points.items()):
            for i, variant in enumerate(values[0]['costs']):
                known = numbers(values, variant, cost)
                # A marker and a dash for each, and one colour darker than the other, so that grey prints work too.
                axis.plot(list(known), list(known.values()), label=variant, marker='osD^v'[i % 5],
                          linestyle=('-', '--', ':')[i % 3], color=('#D55E00', '#0072B2', '#000000')[i % 3])
            axis.set(xlabel=LABELS[name], ylabel=COSTS[cost])
            axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def numbers(values: list[dict], variant: str, cost: str) -> dict[int, float]:
    """Returns the known values of a cost of a variant, in the figure's units, by the size that was changed."""
    return {point['value']: point['costs'][variant][cost] / UNITS[cost] for point in values
            if point['costs'][variant][cost] is not None}

"""The figure of a sweep: how costs grow with each size."""

from pathlib import Path

from ...analysis.figures import in_style, line_style, new_figure

LABELS = dict(image='side of the image (pixels)', prompts='prompts', batch='batch (images)', depth='depth (blocks)')
COSTS = dict(seconds='time of a step (s)', peak='peak of live memory (GiB)', flops='FLOPs of a step (TFLOP)')
UNITS = dict(seconds=1., peak=2**30, flops=1e12)


@in_style
def plot(points: dict, path: str | Path) -> None:
    """Draws a row for each cost and a column for each axis.

    Args:
        points: What :func:`~.sweep.sweep` returned.
        path: The file; its suffix says the format.
    """
    rows = [cost for cost in COSTS if any(numbers(values, variant, cost) for values in points.values()
                                          for variant in values[0]['costs'])]
    figure, axes = new_figure(len(rows), len(points), width=3.4, height=2.7)
    for row, cost in zip(axes, rows):
        for axis, (name, values) in zip(row, points.items()):
            for i, variant in enumerate(values[0]['costs']):
                known = numbers(values, variant, cost)
                axis.plot(list(known), list(known.values()), label=variant, **line_style(i))
            axis.set(xlabel=LABELS[name], ylabel=COSTS[cost])
            axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axes[0][0].legend()
    figure.savefig(path)


def numbers(values: list[dict], variant: str, cost: str) -> dict[int, float]:
    """Returns a cost of a variant by the size that was changed, in the units of the figure, where it is known."""
    return {point['value']: point['costs'][variant][cost] / UNITS[cost] for point in values
            if point['costs'][variant][cost] is not None}

"""Drawing series of points."""

from collections.abc import Sequence
from pathlib import Path

# Colours of Okabe and Ito.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')


def draw(points: Sequence[dict], path: Path, title: str, x: str, logarithmic: bool = False) -> None:
    """Draws accuracy by ``x`` with a line for each series, and the standard deviation where there is one.

    Args:
        points: Of ``series``, ``x``, ``y``, ``std``; those without ``y`` leave a gap.
        path: Where to write; the suffix says the format.
        title: Above the figure.
        x: What the axis is called.
        logarithmic: Whether it is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for i, name in enumerate(dict.fromkeys(point['series'] for point in points)):
        drawn = sorted((p for p in points if p['series'] == name and p['y'] is not None), key=lambda p: p['x'])
        axis.errorbar([p['x'] for p in drawn], [p['y'] for p in drawn], [p['std'] or 0 for p in drawn], label=name,
                      color=COLOURS[i % len(COLOURS)], marker='osD^v'[i % 5], capsize=3)
    ticks = sorted({point['x'] for point in points})
    if logarithmic:
        axis.set_xscale('log')
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()
    axis.set(title=title, xlabel=x, ylabel='accuracy (%)')
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=150)

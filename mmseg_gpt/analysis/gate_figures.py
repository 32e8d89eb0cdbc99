"""Figures of gates, selection ratios and temperatures: by block (Figure 4 of arXiv 2306.05067), and over a training."""

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from .figures import ORDERED, in_style, line_style, new_figure
from .gates import QUANTITIES, GateHistory, GateReport, selection_ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TITLES = dict(zip(QUANTITIES, ('Gate $g_l$', 'Selection ratio $r_l$', 'Attention temperature $\\tau_l$')))
HARD = 'hard gates: the probability to be open'
LETTERS_OF_A_PANEL = 60  # of a note above it


@in_style
def plot_gates(reports: list[GateReport]) -> 'Figure':
    """Draws gates, selection ratios and temperatures by block, for one or several checkpoints.

    Args:
        reports: What to draw side by side.

    Returns:
        The figure, with a panel for each quantity that any of them has. Notes above name those whose gates have
        not moved.
    """
    from matplotlib.ticker import MaxNLocator
    panels = dict(gates=[r.gates for r in reports],
                  selection_ratio=[None if r.gates is None else selection_ratio(r.gates) for r in reports],
                  temperatures=[r.temperatures for r in reports])
    panels = {name: values for name, values in panels.items() if any(v is not None for v in values)}
    figure, axes = new_figure(1, len(panels), height=3.6)
    lines = {}
    for axis, (quantity, values) in zip(axes[0], panels.items()):
        for i, (report, value) in enumerate(zip(reports, values)):
            if value is not None:
                label = f'{report.name} ({HARD})' if report.hard else report.name
                lines[label], = axis.plot(np.arange(1, len(value) + 1), value, **line_style(i))
        label_axis(axis, quantity, 'Block')
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(lines.values(), lines, loc='outside lower center', ncols=len(panels))
    write_notes(figure, [report.note for report in reports], len(panels))
    return figure


@in_style
def plot_history(histories: list[GateHistory]) -> 'Figure':
    """Draws gates, selection ratios and temperatures over the iterations, a line for each block.

    Args:
        histories: A row of panels each.

    Returns:
        The figure. Notes above it name the checkpoints whose gates have not moved.
    """
    from matplotlib.ticker import MaxNLocator
    quantities = [name for name in QUANTITIES if any(name in history.series for history in histories)]
    figure, axes = new_figure(len(histories), len(quantities))
    for row, history in zip(axes, histories):
        colours = block_colours(max(block for values in history.series.values() for block in values))
        for axis, quantity in zip(row, quantities):
            if quantity not in history.series:
                axis.set(xticks=[], yticks=[], frame_on=False)
                axis.text(0.5, 0.5, f'no {quantity.replace("_", " ")}', ha='center', transform=axis.transAxes)
                continue
            for block, values in history.series.get(quantity, {}).items():
                axis.plot(history.iterations, values, color=colours.to_rgba(block),
                          marker='' if len(values) > 1 else 'o')
            label_axis(axis, quantity, 'Iteration')
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        hard = f' ({HARD})' if history.hard else ''
        row[0].set_ylabel('\n'.join(textwrap.wrap(history.name + hard, 30)))
        depth = colours.norm.vmax - 0.5
        figure.colorbar(colours, ax=row, label='Block', fraction=0.02, pad=0.01,
                        ticks=np.arange(1, depth + 1, math.ceil(depth / 12)))
    write_notes(figure, [history.note for history in histories], len(quantities))
    return figure


def block_colours(depth: int) -> 'ScalarMappable':
    """Returns a colour for each of the blocks 1 .. ``depth``, from dark to light."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap
    # Not up to the lightest, which is hard to see on white.
    colours = ListedColormap(colormaps[ORDERED](np.linspace(0, 0.9, depth)))
    return ScalarMappable(BoundaryNorm(np.arange(depth + 1) + 0.5, depth), colours)


def label_axis(axis: 'Axes', quantity: str, over: str) -> None:
    """Gives a panel its titles and limits."""
    axis.set(title=TITLES[quantity], xlabel=over)
    axis.ticklabel_format(useOffset=False)
    if quantity == 'selection_ratio':
        axis.set_ylim(0, 1.1 * max((np.nanmax(line.get_ydata()) for line in axis.lines), default=1.))


def write_notes(figure: 'Figure', notes: list[str | None], panels: int) -> None:
    """Writes above the panels what there is to say."""
    lines = [line for note in notes if note for line in textwrap.wrap(note, LETTERS_OF_A_PANEL * panels)]
    if lines:
        figure.suptitle('\n'.join(lines), fontsize='medium')

"""The picture of runs side by side: their scores, and where their classes differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..analysis.figures import in_style, line_style, new_figure
from .compare import NAMES, SPREAD, Difference, largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@in_style
def draw_comparison(rows: Sequence[dict], differences: Sequence[Difference], most: int = 20) -> 'Figure':
    """Draws the scores of the runs and, under them, the classes in which they differ most from the first.

    Args:
        rows: Of :func:`table`.
        differences: Of :func:`class_differences`; may be empty.
        most: How many classes are shown.
    """
    classes = largest(differences, most)
    heights = [0.9 + 0.35 * len(rows), *([1.1 + 0.24 * len(classes)] if classes else [])]
    figure, axes = new_figure(len(heights), 1, width=7.5, height=sum(heights) / len(heights),
                              height_ratios=heights)
    draw_scores(axes[0, 0], rows)
    if classes:
        draw_differences(axes[1, 0], [found for found in differences if found.difference is not None], classes,
                         [row['run'] for row in rows])
    return figure


def draw_scores(axis: 'Axes', rows: Sequence[dict]) -> None:
    """Draws a point for each score of each run, the first run at the top."""
    scores = [name for name in NAMES.values() if f'{name} (%)' in rows[0]]
    for i, name in enumerate(scores):
        drawn = [(row[f'{name} (%)'], y, row[f'{name}{SPREAD}'] or 0) for y, row in enumerate(rows)
                 if row[f'{name} (%)'] is not None]
        if drawn:
            values, places, spread = zip(*drawn)
            axis.errorbar(values, places, xerr=spread, label=name, **line_style(i) | dict(linestyle=''))
    axis.set_yticks(range(len(rows)), [row['run'] for row in rows])
    several = max(row['seeds'] for row in rows) > 1
    axis.set(title='Scores' + (', mean and standard deviation of seeds' if several else ''),
             xlabel=f'{" and ".join(dict.fromkeys(name.split()[0] for name in scores))} (%)',
             ylim=(len(rows) - 0.5, -0.5))
    if len(scores) > 1:
        axis.legend(loc='center left', bbox_to_anchor=(1, 0.5))


def draw_differences(axis: 'Axes', differences: Sequence[Difference], classes: Sequence[str], names: Sequence[str]
                     ) -> None:
    """Draws a row of points for each class, one for each run but the first."""
    for i, name in enumerate(names[1:], 1):
        drawn = [(found.difference, classes.index(found.class_name)) for found in differences
                 if found.name == name and found.class_name in classes]
        if drawn:
            axis.plot(*zip(*drawn), label=name, **line_style(i) | dict(linestyle=''))
    axis.axvline(0, color='black', linewidth=1)
    axis.set_yticks(range(len(classes)), classes)
    counted = len({found.class_name for found in differences})
    axis.set(title='All classes' if len(classes) == counted else
             f'The {len(classes)} of {counted} classes that differ most', ylim=(len(classes) - 0.5, -0.5),
             xlabel=f'difference in IoU from {names[0]} (percentage points)')
    axis.figure.legend(loc='outside lower center', ncols=2, handles=axis.get_legend_handles_labels()[0])

"""Drawing series of numbers with the spread over their seeds: lines over a quantity, and bars by category."""

from collections.abc import Collection, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

from .figures import bar_style, in_style, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER = 'in the paper'


class Point(NamedTuple):
    """A number of a figure.

    Attributes:
        panel: The axes it is in, by their title.
        series: Its line, or the kind of its bar.
        x: Where it is on the axis; text for bars.
        y: In percent, the mean over seeds; None if nothing was measured.
        std: The standard deviation over seeds, if there are two.
        seeds: How many seeds there are.
        paper: What the paper prints for it, if anything.
    """
    panel: str
    series: str
    x: float | str
    y: float | None
    std: float | None
    seeds: int
    paper: float | None = None


def mean_and_std(values: Collection[float]) -> tuple[float | None, float | None]:
    """Returns the mean, and the standard deviation (that of a sample); None where there are too few values."""
    return mean(values) if values else None, stdev(values) if len(values) > 1 else None


@in_style
def draw_lines(points: Sequence[Point], title: str, x: str, y: str, logarithmic: bool = False) -> 'Figure':
    """Draws a line for each series over ``x``, in panels side by side.

    Args:
        points: Those without ``y`` are left out.
        title: Above the figure.
        x: What the axis is called.
        y: What the other is called, with its unit.
        logarithmic: Whether the first is.
    """
    panels = list(dict.fromkeys(point.panel for point in points))
    figure, axes = new_figure(1, len(panels), width=6.5 if len(panels) == 1 else 4.8, height=4.2)
    names = list(dict.fromkeys(point.series for point in points))
    for axis, panel in zip(axes[0], panels):
        inside = [point for point in points if point.panel == panel]
        for i, name in enumerate(names):
            draw_line(axis, [p for p in inside if p.series == name], line_style(i), name)
        ticks = sorted({point.x for point in inside if point.y is not None or point.paper is not None})
        if logarithmic:
            axis.set_xscale('log')
        axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
        axis.minorticks_off()
        axis.set(title=panel, xlabel=x, ylabel=y)
    return finish(figure, axes[0], title, points)


def draw_line(axis: 'Axes', points: Sequence[Point], style: dict[str, str], name: str) -> None:
    """Draws one series: what was measured as a line, what the paper prints as hollow markers."""
    drawn = sorted((p for p in points if p.y is not None), key=lambda p: p.x)
    if drawn:
        axis.errorbar([p.x for p in drawn], [p.y for p in drawn], [p.std or 0 for p in drawn], label=name,
                      **style)
    if printed := [p for p in points if p.paper is not None]:
        axis.plot([p.x for p in printed], [p.paper for p in printed], linestyle='', marker=style['marker'],
                  markersize=11, markerfacecolor='none', markeredgecolor=style['color'])


@in_style
def draw_bars(points: Sequence[Point], title: str, y: str) -> 'Figure':
    """Draws a bar for each series at each category, in panels below each other.

    Args:
        points: A category of which nothing is known is left out.
        title: Above the figure.
        y: What the axis is called, with its unit.
    """
    points = [point for point in points if point.y is not None or point.paper is not None]
    panels, names, categories = (list(dict.fromkeys(getattr(point, part) for point in points))
                                 for part in ('panel', 'series', 'x'))
    many = len(categories) > 8
    figure, axes = new_figure(len(panels), 1, width=max(7.5, 1.5 + 0.13 * len(categories) * (len(names) + 1)),
                              height=3.2, sharex=True)
    for axis, panel in zip(axes[:, 0], panels):
        axis.grid(visible=False, axis='x')
        for i, name in enumerate(names):
            offset = (i - (len(names) - 1) / 2) / (len(names) + 1)
            inside = [(categories.index(p.x) + offset, p) for p in points if (p.panel, p.series) == (panel, name)]
            draw_one_bar_each(axis, inside, 1 / (len(names) + 1), bar_style(i), name)
        axis.set(title=panel, ylabel=y, xlim=(-0.6, len(categories) - 0.4))
    axis.set_xticks(range(len(categories)), [c if many else c.replace(' ', '\n') for c in categories],
                    **(dict(rotation=45, ha='right') if many else {}))
    return finish(figure, axes[:, 0], title, points)


@in_style
def draw_dots(points: Sequence[Point], title: str, x: str, columns: int) -> 'Figure':
    """Draws a dot for each series with its spread, below one another, in panels of their own scale.

    Args:
        points: Of each series one in a panel; what they have as ``x`` is not looked at.
        title: Above the figure.
        x: What the axis is called, with its unit.
        columns: Panels side by side.
    """
    points = [point for point in points if point.y is not None]
    panels, names = (list(dict.fromkeys(getattr(point, part) for point in points)) for part in ('panel', 'series'))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width=3.4, height=1 + 0.22 * len(names), sharey=True)
    for axis, panel in zip(axes.flat, panels):
        for point in (point for point in points if point.panel == panel):
            style = line_style(names.index(point.series)) | dict(linestyle='')
            axis.errorbar([point.y], [names.index(point.series)], xerr=[point.std or 0], **style)
        axis.set(title=panel, xlabel=x)
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    figure.suptitle(f'{title} ({seeds_in_words(points)})')
    return figure


def draw_one_bar_each(axis: 'Axes', places: Sequence[tuple[float, Point]], width: float, style: dict[str, str],
                      name: str) -> None:
    """Draws the bars of one series, each at its place, and what the paper prints as hollow markers."""
    drawn = [(x, p) for x, p in places if p.y is not None]
    if drawn:
        axis.bar([x for x, _ in drawn], [p.y for _, p in drawn], width, label=name, **style)
    if spread := [(x, p) for x, p in drawn if p.std]:
        axis.errorbar([x for x, _ in spread], [p.y for _, p in spread], [p.std for _, p in spread], fmt='none',
                      ecolor='black', capsize=2)
    if printed := [(x, p.paper) for x, p in places if p.paper is not None]:
        axis.plot(*zip(*printed), linestyle='', marker='o', markersize=6, markerfacecolor='white',
                  markeredgecolor='black')


def finish(figure: 'Figure', axes: Sequence['Axes'], title: str, points: Sequence[Point]) -> 'Figure':
    """Adds the title, one legend for all panels, and how many seeds there are."""
    from matplotlib.lines import Line2D
    shown: dict[str, Artist] = {name: handle for axis in axes
                                for handle, name in zip(*axis.get_legend_handles_labels())}
    if any(point.paper is not None for point in points):
        shown[PAPER] = Line2D([], [], linestyle='', marker='o', markersize=7, markerfacecolor='none',
                              markeredgecolor='black')
    figure.suptitle(title)
    columns = max(1, int(figure.get_figwidth() // 2.5))
    figure.legend(shown.values(), shown.keys(), loc='outside lower center', ncols=min(len(shown), columns),
                  title=seeds_in_words(points), title_fontsize='small')
    return figure


def seeds_in_words(points: Sequence[Point]) -> str:
    """Says of how many seeds the numbers are."""
    counts = sorted({point.seeds for point in points if point.y is not None})
    if counts[-1:] in ([], [1]):
        return 'one seed each' if counts else 'nothing was measured yet'
    return f'mean and standard deviation of {" to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds'

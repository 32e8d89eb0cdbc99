"""How every figure looks and is written: the same in a paper and in a README, in grey and for colour-blind readers."""

import csv
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..events import without_nan
from ..files import replacing
from ..wording import reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name('mmseg_gpt.mplstyle')
# Colours of Okabe and Ito. A line has a marker and dashes of its own as well, so that grey prints work too.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = ('o', 's', 'D', '^', 'v', 'P', 'X')
DASHES = ('-', '--', '-.', ':')
HATCHES = ('', '///', '...', 'xxx', '\\\\\\', '++', 'oo')
ORDERED = 'cividis'  # for what has an order, such as blocks: also in grey, from dark to light
HEAT = 'inferno'  # for maps


def line_style(i: int) -> dict[str, str]:
    """Returns the look of a series, for ``axis.plot`` and ``axis.errorbar``.

    Args:
        i: Number of the series, from 0.
    """
    return dict(color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], linestyle=DASHES[i % len(DASHES)])


def bar_style(i: int) -> dict[str, str]:
    """Returns the look of a series, for ``axis.bar``.

    Args:
        i: Number of the series, from 0.
    """
    return dict(color=COLOURS[i % len(COLOURS)], hatch=HATCHES[i % len(HATCHES)], edgecolor='white')


def in_style(draw: Callable) -> Callable:
    """Lets a function draw in the style of ``mmseg_gpt.mplstyle``, and leaves no global state."""
    @functools.wraps(draw)
    def draw_in_style(*args, **kwargs):
        from matplotlib import style
        with style.context(STYLE):
            return draw(*args, **kwargs)
    return draw_in_style


@in_style
def new_figure(rows: int = 1, columns: int = 1, width: float = 4.2, height: float = 3.2,
               layout: str = 'constrained', **options) -> tuple['Figure', np.ndarray]:
    """Returns an empty figure that needs no display and leaves no global state.

    Args:
        rows: How many rows of axes there are.
        columns: How many columns of axes there are.
        width: The width of each axes, in inches.
        height: The height of each axes, in inches.
        layout: How axes find their places; 'none' lets the caller place them.
        **options: Options of ``Figure.subplots``.

    Returns:
        The figure, and its axes (rows, columns).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width * columns, height * rows), layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def frame_picture(axis: 'Axes') -> None:
    """Gives an axes the frame of a picture: on all four sides, without numbers."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of the operating system into words that name the file.

    Raises:
        ValueError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ValueError(f'{path} cannot be written: {reason(error)}') from error


@in_style
def write_figure(figure: 'Figure', path: Path) -> list[Path]:
    """Writes a figure as PNG (150 dots an inch) and SVG, and in the format of ``path`` if that is another.

    The same figure gives the same files, byte for byte.

    Args:
        figure: What is written.
        path: The file; its suffix is .png, .svg or .pdf. The folder is made.

    Returns:
        The files.

    Raises:
        ValueError: A file cannot be written.
    """
    written = []
    with writing(path):
        for suffix in dict.fromkeys(('.png', '.svg', path.suffix)):
            dates = dict(CreationDate=None) if suffix == '.pdf' else dict(Date=None) if suffix == '.svg' else {}
            with replacing(path.with_suffix(suffix)) as unfinished:
                figure.savefig(unfinished, format=suffix[1:], metadata=dates)
            written.append(path.with_suffix(suffix))
    return written


def write_numbers(rows: Sequence[dict], path: Path, **facts: object) -> list[Path]:
    """Writes the numbers of a figure as CSV, and as JSON together with further facts.

    Args:
        rows: Flat, with the same keys; None is an empty cell. Numbers that are not finite become None.
        path: The file of the figure.
        **facts: Further keys of the JSON file, beside ``rows``, to which the same applies.

    Returns:
        The files.

    Raises:
        ValueError: A file cannot be written.
    """
    rows = without_nan(rows)
    table, everything = path.with_suffix('.csv'), path.with_suffix('.json')
    with writing(table), replacing(table) as unfinished, unfinished.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    with writing(everything), replacing(everything) as unfinished:
        content = json.dumps(without_nan(dict(**facts, rows=rows)), indent=1, allow_nan=False)
        unfinished.write_text(content + '\n', encoding='utf-8')
    return [table, everything]

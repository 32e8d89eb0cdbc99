"""How every figure looks and is written: the same in a paper and in a README, in grey and for colour-blind readers."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def new_figure(rows: int = 1, columns: int = 1, width: float = 4.2, height: float = 3.2,
               **options) -> tuple['Figure', np.ndarray]:
    """An empty figure that needs no display and leaves no global state.

    Args:
        rows: Of axes.
        columns: Of axes.
        width: Of each, in inches.
        height: Of each, in inches.
        **options: Of ``Figure.subplots``.

    Returns:
        tuple: The figure, and its axes (rows, columns).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width * columns, height * rows), layout='constrained')
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def tidy(axis: 'Axes') -> None:
    """A light grid, and no frame at the top and at the right: for axes with numbers on them."""
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says it in words where a file cannot be written.

    Raises:
        ValueError: in the place of the operating system's errors.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ValueError(f'{path} cannot be written: {error.strerror or error}') from error


def write_figure(figure: 'Figure', path: Path) -> list[Path]:
    """Writes a figure as PNG (150 dots an inch) and SVG, and in the format of ``path`` if that is another.

    The same figure gives the same files, byte for byte.

    Args:
        figure: What is written.
        path: Where; its suffix is .png, .svg or .pdf. The folder is made.

    Returns:
        The files.

    Raises:
        ValueError: it cannot be written.
    """
    import matplotlib
    written = []
    with writing(path), matplotlib.rc_context({'svg.hashsalt': 'mmseg_gpt'}):
        for suffix in dict.fromkeys(('.png', '.svg', path.suffix)):
            dates = dict(CreationDate=None) if suffix == '.pdf' else dict(Date=None) if suffix == '.svg' else {}
            with replacing(path.with_suffix(suffix)) as unfinished:
                figure.savefig(unfinished, format=suffix[1:], dpi=150, metadata=dates)
            written.append(path.with_suffix(suffix))
    return written


def write_numbers(rows: Sequence[dict], path: Path, **facts: object) -> list[Path]:
    """Writes what a figure shows as CSV, and as JSON with what else is to be known.

    Args:
        rows: Flat, with the same keys; None is an empty cell. Numbers that are not finite become None.
        path: Of the figure.
        **facts: Further keys of the JSON file, beside ``rows``, to which the same applies.

    Returns:
        The files.

    Raises:
        ValueError: they cannot be written.
    """
    rows = finite(rows)
    table, everything = path.with_suffix('.csv'), path.with_suffix('.json')
    with writing(table), replacing(table) as unfinished, unfinished.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    with writing(everything), replacing(everything) as unfinished:
        content = json.dumps(finite(dict(**facts, rows=rows)), indent=1, allow_nan=False)
        unfinished.write_text(content + '\n', encoding='utf-8')
    return [table, everything]


def finite(value: object) -> object:
    """The same, down to its items, with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value

"""Results as plain data, written for people: cells and rows of tables, points of figures, a part of a page."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from ..analysis.figures import write_figure
from ..analysis.series import Point, mean_and_std
from ..recipes.methods import METHODS
from ..recipes.titles import title
from ..wording import markdown_table
from .suite.tables import Cell, cell_text

BOLD = 'The best of the methods that adapt the ViT without training all of it is bold.'


def write_results(results: dict, folder: Path, said: str, csv: str, figures: Iterable[tuple[str, Any]]) -> str:
    """Writes results.md, .csv, .json and figures.

    Args:
        results: All results, as plain data.
        folder: Where to.
        said: The results as Markdown.
        csv: The results as CSV.
        figures: Figures of matplotlib, with their names.

    Returns:
        The Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in (('md', said), ('csv', csv), ('json', json.dumps(results, indent=1) + '\n')):
        (folder / f'results.{suffix}').write_text(content, encoding='utf-8')
    for name, figure in figures:
        write_figure(figure, folder / f'{name}.png')
    return said


def best_adapting(found: Mapping[str, Mapping[str, float]], seeds: int) -> str | None:
    """Returns the method with the highest mean, of those with all seeds that adapt a ViT without training all of it.

    Args:
        found: Numbers by seed, by method.
        seeds: How many there should be.
    """
    means = {method: mean(values.values()) for method, values in found.items()
             if len(values) == seeds and METHODS[method].adapts}
    return max(means, key=means.get, default=None)


def cell(values: Mapping[str, float] | None, seeds: int, bold: bool = False) -> str:
    """Returns the mean over seeds and the standard deviation.

    Args:
        values: Numbers by seed, if there are any.
        seeds: How many there should be.
        bold: Whether it is emphasised.
    """
    shown = cell_text(Cell(dict(values or {}), {}), seeds)
    return f'**{shown}**' if bold and shown else shown


def plain(table: dict, seeds: int) -> str:
    """Returns a table with the rows and columns of the results."""
    header = [*(label if label == 'SSL' else label.capitalize() for label in table['labels']), *table['columns']]
    return markdown_table(header, ([*map(title, row['name']), *(
        cell(row['values'].get(column), seeds) for column in table['columns'])] for row in table['rows']),
                          len(table['labels']))


def number_tried(value: float | None, chosen: bool) -> str:
    """Returns a number of a search."""
    shown = 'diverged' if value is None else f'{value:.2f}'
    return f'**{shown}**' if chosen else shown


def points(table: dict) -> list[Point]:
    """Returns the points of a figure of lines."""
    found = []
    for row in table['rows']:
        names = dict(zip(table['labels'], (title(part) for part in row['name'])))
        panel = names.pop(table['panels'], '')
        for column, values in row['values'].items():
            found.append(point(panel, ' '.join(names.values()), float(column), list(values.values())))
    return found


def point(panel: str, series: str, x: float, values: Sequence[float]) -> Point:
    """Returns a point with the mean and the standard deviation of ``values``."""
    return Point(panel, series, x, *mean_and_std(values), len(values))


def put_between(page: Path, begin: str, end: str, part: str) -> str:
    """Returns the text of a page with another part between two lines.

    Args:
        page: A Markdown file.
        begin: The line before the part.
        end: The line after it.
        part: What is to be there, without these lines.

    Raises:
        SystemExit: the page has no such lines.
    """
    old = page.read_text(encoding='utf-8')
    place = re.compile(f'{re.escape(begin)}.*?{re.escape(end)}', re.DOTALL)
    if not place.search(old):
        raise SystemExit(f'{page} has no lines "{begin}" and "{end}", between which the results would go')
    return place.sub(lambda _: '\n\n'.join([begin, part, end]), old)

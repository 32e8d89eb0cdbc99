"""Figures 1, 6, 7 and 8, of what a suite or runs that were made one by one have measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...analysis.figures import write_figure, write_numbers
from ...analysis.series import Point, draw_bars, draw_lines
from ...engine import errors_in_words
from ...resources import command_of, this_command
from ..finished import read_run
from ..runs import differing_runs, outcomes
from .places import table_of
from .plans import PLANS, PROMPTS, Table, runs_of
from .printed import printed
from .tables import column_means, measured, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {'accuracy/top1': 'accuracy', 'mIoU': 'mIoU', 'tta/mIoU': 'mIoU, multi-scale'}


class Filled(NamedTuple):
    """A figure with its numbers.

    Attributes:
        table: What is shown.
        points: Its numbers.
        notes: What a reader has to know about them.
    """
    table: Table
    points: list[Point]
    notes: list[str]


def draw(table: Table, points: Sequence[Point]) -> 'Figure':
    """Draws a table that is a figure."""
    unit = f'{" or ".join(dict.fromkeys(UNITS[entry.number] for entry in table.entries))} (%)'
    if table.bars:
        return draw_bars(points, table.title, unit)
    return draw_lines(points, table.title, table.x, unit, logarithmic=table.x == PROMPTS)


def of_suite(name: str, home: Path) -> Filled:
    """Returns the figure of what tools/benchmark_suite.py has finished.

    Args:
        name: The name of the figure in ``PLANS``.
        home: The suite's folder.

    Raises:
        ValueError: The suite has finished no run of the figure.
    """
    table, folder = PLANS[name](), home / 'runs'
    seeds = sorted({int(path.name[5:]) for path in folder.glob('*/seed_*') if path.name[5:].isdecimal()})
    runs = runs_of(table.entries, seeds)
    cells = measured(table.entries, seeds, outcomes(runs, folder))
    changed = differing_runs(runs, folder)
    said = f'{len(changed)} runs in {folder} have other settings than now, and are not counted'
    if not any(cell.values for cell in cells.values()):
        command = command_of('benchmark_suite', name, '--out', home)
        raise ValueError(f'nothing of {name} has finished in {folder}. {command} makes its runs; folders of other runs '
                         'can be given instead' + (f'. {said}' if changed else ''))
    return Filled(table, series(table, column_means(table, cells), printed(name)), [said] if changed else [])


def of_runs(folders: Sequence[Path], by: str) -> Filled:
    """Returns the figure of some runs.

    Args:
        folders: Their work directories.
        by: As for :func:`~.places.table_of`.

    Raises:
        ValueError: A run is not finished, or has no place in the figure, or two have the same place.
        CheckpointError: A checkpoint is damaged.
    """
    table, cells, notes = table_of([read_run(folder) for folder in folders], by)
    if by == 'prompts':  # a figure of one task
        paper = {((*row, 'cars'), column): number for (row, column), number in printed('figure7').items()}
    else:
        paper = printed(dict(groups='figure6', datasets='figure8').get(by, 'figure1'))
    points = series(table, column_means(table, cells), paper)
    if any(point.paper is not None for point in points):
        notes.append('the paper\'s numbers are of its own settings: compare them with runs of the same prompts, '
                     'learning rates and iterations')
    return Filled(table, points, notes)


def draw_and_write(runs: Sequence[Path], suite: Path, out: Path, name: str, by: str) -> None:
    """Draws and writes a figure for a tool, and prints notes and the names of the files.

    Args:
        runs: Work directories; empty for the runs of a suite.
        suite: The suite's folder.
        out: Where the figure goes.
        name: As for :func:`of_suite`.
        by: As for :func:`of_runs`.

    Raises:
        SystemExit: There is nothing to draw, or a run cannot be read; the message says what to do.
    """
    with errors_in_words():
        try:
            table, points, notes = of_runs(runs, by) if runs else of_suite(name, suite)
            files = [*write_figure(draw(table, points), out), *write_numbers(
                [point._asdict() for point in points], out, title=table.title,
                command=this_command(), notes=notes)]
        except ValueError as error:
            raise SystemExit(str(error)) from error
    print('\n'.join([*(f'note: {note}' for note in notes), f'written: {", ".join(map(str, files))}']))

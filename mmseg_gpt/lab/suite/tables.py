"""The numbers of finished runs as the paper prints them: Markdown, CSV and JSON.

A mean over tasks counts only the seeds that have all these tasks, and a mean over fewer seeds than were asked for says
how many there are.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from ...analysis.series import Point, mean_and_std
from ...recipes.titles import title
from ...wording import markdown_table
from .plans import Entry, Table
from .printed import TOTAL

CellPlace = tuple[tuple[str, ...], str]
RowName = tuple[str, ...]


class Cell(NamedTuple):
    """What was measured for a place in a table.

    Attributes:
        values: The numbers, by seed.
        failed: The reasons why there is no number, by seed.
    """
    values: dict[int, float]
    failed: dict[int, str]

    @property
    def mean(self) -> float | None:
        """The mean over the seeds that have a value."""
        return mean_and_std(self.values.values())[0]

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds (that of a sample), if there are two."""
        return mean_and_std(self.values.values())[1]


def measured(entries: Iterable[Entry], seeds: Sequence[int], records: Mapping[str, dict]) -> dict[CellPlace, Cell]:
    """Returns what the runs of each entry have given, by row and column.

    Args:
        entries: The entries of a table.
        seeds: Those that were asked for.
        records: The records of runs, by name: ``status`` and ``numbers`` or ``reason``.
    """
    cells = {}
    for entry in entries:
        found = {seed: records.get(entry.run.with_seed(seed).name, {}) for seed in seeds}
        values = {seed: r['numbers'][entry.number] for seed, r in found.items() if r.get('status') == 'finished'}
        failed = {seed: r['reason'] for seed, r in found.items() if r.get('status') == 'failed'}
        cells[entry.row, entry.column] = Cell(values, failed)
    return cells


def as_data(table: Table, seeds: Sequence[int], records: Mapping[str, dict]) -> dict:
    """Returns a table with the value of every seed."""
    cells = measured(table.entries, seeds, records)
    return dict(
        title=table.title, labels=list(table.labels), columns=list(table.columns), x=table.x, panels=table.panels,
        rows=[dict(name=list(row), values={column: {str(seed): value for seed, value in cell.values.items()}
                                           for (at, column), cell in cells.items() if at == row and cell.values})
              for row in rows_of(table)])


def combined(cells: Sequence[Cell]) -> Cell:
    """Returns the mean of several cells, for each seed that all of them have."""
    if len(cells) == 1:
        return cells[0]
    seeds = [seed for seed in cells[0].values if all(seed in cell.values for cell in cells)]
    failed = {seed: why for cell in cells for seed, why in cell.failed.items()}
    return Cell({seed: mean(cell.values[seed] for cell in cells) for seed in seeds}, failed)


def column_means(table: Table, cells: Mapping[CellPlace, Cell]) -> dict[CellPlace, Cell]:
    """Returns the cells of a table's columns; there is none where the table has no entry."""
    return {(row, name): combined([cells[row, column] for column in columns])
            for row in rows_of(table) for name, columns in table.columns.items()
            if all((row, column) in cells for column in columns)}


def rows_of(table: Table) -> list[RowName]:
    """Returns the names of the rows in order."""
    return list(dict.fromkeys(entry.row for entry in table.entries))


def cell_text(cell: Cell | None, seeds: int) -> str:
    """Returns a cell as it is printed: ``70.56 ± 0.31``, of how many seeds if some are missing, or empty."""
    if cell is None or not (cell.values or cell.failed):
        return ''
    if not cell.values:
        return 'failed'
    number = f'{cell.mean:.2f}' + (f' ± {cell.std:.2f}' if len(cell.values) > 1 else '')
    return number if len(cell.values) == seeds else f'{number} ({len(cell.values)} of {seeds} seeds)'


def format_total(share: float | None) -> str:
    """Returns TOTAL PARAMS as the paper prints it."""
    return '' if share is None else f'{share:.2f}x'


def markdown(table: Table, cells: Mapping[CellPlace, Cell], seeds: Sequence[int], paper: Mapping[CellPlace, float],
             totals: Mapping[RowName, float]) -> str:
    """Returns the table as Markdown: for each row the paper's numbers, if it has any, and under them ours.

    Args:
        table: What is shown.
        cells: By row and title of column, as :func:`column_means` gives them.
        seeds: Those that were asked for.
        paper: The paper's numbers.
        totals: TOTAL PARAMS by row, if the table has them.
    """
    columns = [*([TOTAL] if table.total_params else []), *table.columns]
    lines = []
    for row in rows_of(table):
        names = [title(part) for part in row]
        printed = {column: paper.get((row, column)) for column in columns}
        if any(number is not None for number in printed.values()):
            lines.append([*names, 'paper', *(
                format_total(number) if column == TOTAL else '' if number is None else f'{number:.2f}'
                for column, number in printed.items())])
        lines.append([*names, 'measured', *(
            format_total(totals.get(row)) if column == TOTAL else cell_text(cells.get((row, column)), len(seeds))
            for column in columns)])
    return markdown_table([*table.labels, '', *(title(c).upper() for c in columns)], lines, len(table.labels) + 1)


def per_task(table: Table) -> Table | None:
    """Returns the table with a column for each task; None if each task has one already."""
    single = list(dict.fromkeys(entry.column for entry in table.entries))
    if all((column, ) in table.columns.values() for column in single):
        return None
    return table._replace(columns={column: (column, ) for column in single}, total_params=False)


def failures(cells: Mapping[CellPlace, Cell]) -> list[str]:
    """Returns a line for each run that has failed."""
    return [f'- {", ".join(title(part) for part in (*row, column))}, seed {seed}: failed: {why}'
            for (row, column), cell in cells.items() for seed, why in cell.failed.items()]


def spreadsheet(table: Table, cells: Mapping[CellPlace, Cell], paper: Mapping[CellPlace, float],
                totals: Mapping[RowName, float]) -> str:
    """Returns the table as CSV: for each row the paper's numbers, our means, and their standard deviations."""
    columns = [*([TOTAL] if table.total_params else []), *table.columns]
    lines = [[*table.labels, 'source', *columns]]
    for row in rows_of(table):
        ours = {column: cells.get((row, column)) or Cell({}, {}) for column in table.columns}
        lines += [[*row, 'paper', *(paper.get((row, column)) for column in columns)],
                  [*row, 'mean', *(totals.get(row) if c == TOTAL else ours[c].mean for c in columns)],
                  [*row, 'standard deviation', *(None if c == TOTAL else ours[c].std for c in columns)]]
    return to_csv(lines)


def series(table: Table, cells: Mapping[CellPlace, Cell], paper: Mapping[CellPlace, float]) -> list[Point]:
    """Returns the points of a figure; a part of a row's name may be the name of its panel."""
    points = []
    for (row, column), cell in cells.items():
        names = dict(zip(table.labels, (title(part) for part in row)))
        points.append(Point(
            names.pop(table.panels, ''), ' '.join(names.values()),
            float(column) if table.x else title(column), cell.mean, cell.std, len(cell.values),
            paper.get((row, column))))
    return points


def points_as_csv(points: Sequence[Point]) -> str:
    """Returns the points of a figure as CSV."""
    return to_csv([Point._fields, *points])


def to_csv(lines: Iterable[Sequence[object]]) -> str:
    """Returns lines as CSV; None becomes an empty cell."""
    file = io.StringIO()
    csv.writer(file, lineterminator='\n').writerows(lines)
    return file.getvalue()


def cells_as_json(table: Table, cells: Mapping[CellPlace, Cell], paper: Mapping[CellPlace, float]) -> list[dict]:
    """Returns every number with its seeds, for JSON."""
    return [dict(zip(table.labels, row), column=column, mean=cell.mean, std=cell.std,
                 values={str(seed): value for seed, value in cell.values.items()},
                 failed={str(seed): why for seed, why in cell.failed.items()}, paper=paper.get((row, column)))
            for (row, column), cell in cells.items()]

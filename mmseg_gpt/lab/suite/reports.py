"""Writing what a suite or a search has given into files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...analysis.figures import write_figure
from ...analysis.series import draw_lines
from ..runs import config_of
from . import search as searches
from .figures import draw
from .parameters import count_parameters, total_params
from .plans import Table
from .printed import TOTAL, printed
from .tables import (
    RowName,
    cells_as_json,
    column_means,
    failures,
    markdown,
    measured,
    per_task,
    points_as_csv,
    rows_of,
    series,
    spreadsheet,
)


def totals_of(table: Table) -> dict[RowName, float]:
    """Returns TOTAL PARAMS of each row, from the models of its tasks; nothing for a table without that column."""
    if not table.total_params:
        return {}
    return {row: total_params([count_parameters(config_of(e.run)) for e in table.entries if e.row == row])
            for row in rows_of(table)}


def write_table(name: str, table: Table, records: Mapping[str, dict], seeds: Sequence[int], path: Path,
                settings: Sequence[str] = ()) -> str:
    """Writes a table or figure as Markdown, CSV and JSON, a figure as PNG and SVG too, and returns the Markdown.

    Args:
        name: The table's in ``PLANS``.
        table: What is shown.
        records: Of runs, by name.
        seeds: Those that were asked for.
        path: The files, without a suffix.
        settings: What all runs had in addition; it is noted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    paper, totals, cells = printed(name), totals_of(table), measured(table.entries, seeds, records)
    shown, detail = column_means(table, cells), per_task(table)
    text = [f'# {table.title}', '', markdown(table, shown, seeds, paper, totals)]
    if detail:
        text += ['', markdown(detail, column_means(detail, cells), seeds, {}, {})]
    done, bad = (sum(len(getattr(cell, kind)) for cell in cells.values()) for kind in ('values', 'failed'))
    text += ['', f'{done} of {len(cells) * len(seeds)} numbers are measured, {bad} failed; seeds '
             f'{", ".join(map(str, seeds))}; mean ± standard deviation.']
    text += ['', f'All runs with {" ".join(settings)}'] if settings else []
    text += ['', *failures(cells)] if bad else []
    points = series(table, shown, paper) if table.x or table.bars else []
    everything = dict(title=table.title, seeds=list(seeds), settings=list(settings),
                      cells=cells_as_json(table, shown, paper))
    if table.total_params:
        everything[TOTAL] = [dict(zip(table.labels, row), times=times) for row, times in totals.items()]
    if detail:
        everything['each'] = cells_as_json(detail, cells, {})
    if points:
        everything['points'] = [point._asdict() for point in points]
        write_figure(draw(table, points), path.with_suffix('.png'))
    return write(path, '\n'.join(text) + '\n', points_as_csv(points) if points else
                 spreadsheet(table, shown, paper, totals), everything)


def write_search(search: Table, records: Mapping[str, dict], seeds: Sequence[int], path: Path) -> str:
    """Writes a search as Markdown, CSV, JSON, PNG and SVG, and returns the Markdown."""
    cells = measured(search.entries, seeds, records)
    curves = draw_lines(searches.curves(search, cells), search.title, 'learning rate', 'accuracy (%)', logarithmic=True)
    write_figure(curves, path.with_suffix('.png'))
    return write(path, searches.report(search, cells, seeds), searches.as_csv(search, cells),
                 searches.as_json(search, cells, seeds))


def write(path: Path, text: str, table: str, everything: dict) -> str:
    """Writes three files beside each other."""
    path.with_suffix('.md').write_text(text, encoding='utf-8')
    path.with_suffix('.csv').write_text(table, encoding='utf-8')
    path.with_suffix('.json').write_text(json.dumps(everything, indent=1) + '\n', encoding='utf-8')
    return text

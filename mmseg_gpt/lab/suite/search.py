"""A search over learning rates, gate priors and numbers of prompts, on validation images.

It is a grid of independent runs, each of which our own runner resumes exactly; a tuner would add neither a better
order nor pruning that the paper's search had, and none of them resumes a trial within its training by itself.
"""

import itertools
from collections.abc import Mapping, Sequence

from ...analysis.series import Point
from ...recipes.linear import RATES
from ...resources import TOOLS
from ...settings import look_up, type_name
from ...wording import markdown_table
from ..runs import (
    SETTINGS,
    Run,
    adapter_only_setting,
    command_line,
    config_of,
    format_number,
    relative_path,
    with_settings,
)
from .plans import ACCURACY, Entry, Table
from .tables import Cell, CellPlace, RowName, cell_text, cells_as_json, failures, rows_of, to_csv

LABELS = dict(lr='learning rate', gate='gate prior', prompts='prompts')
COLUMN = 'validation accuracy'


def grid(config: str, settings: Sequence[str], rates: Sequence[float] | None = None, gates: Sequence[float] = (),
         prompts: Sequence[int] = ()) -> Table:
    """Returns the runs of a search as a table, with a row for each point.

    Args:
        config: A config file, or the name of an experiment.
        settings: ``KEY=VALUE`` for all runs.
        rates: Learning rates; None means those of ``RATES`` for the config's optimizer.
        gates: Gate priors; empty means the config's own.
        prompts: Numbers of prompts (with VPT-deep, in each block); empty means the config's own.

    Raises:
        ValueError: the config has no gates, or no prompts, to be searched; or no rates are known for its optimizer.
        SystemExit: there is no such config, or a setting is wrong.
    """
    cfg = config_of(Run('', config, tuple(settings), ('--search-split', )))
    own = {name: look_up(cfg, SETTINGS[name]) for name in ('gate', 'prompts')}
    for name, wanted in dict(gate=gates, prompts=prompts).items():
        if wanted and own[name] is None:
            raise ValueError(f'{config} has no {SETTINGS[name]}, so there is no {LABELS[name]} to search')
    optimizer = type_name(cfg.optim_wrapper.optimizer)
    if rates is None and optimizer not in RATES:
        raise ValueError(f'{config} trains with {optimizer}, for which there are no usual learning rates: give --lr')
    plain = Run('', config, (*adapter_only_setting(cfg), *settings), ('--search-split', ))
    entries = []
    for lr, gate, count in itertools.product(
            rates or RATES[optimizer], gates or [own['gate']], prompts or [own['prompts']]):
        run = with_settings(plain, lr=lr, gate=gate, prompts=count)
        row = tuple('' if value is None else format_number(value) for value in (lr, gate, count))
        entries.append(Entry('', '', '', run._replace(name=run.name.lstrip('_')), row, COLUMN, ACCURACY))
    title = f'Search on the validation images of {relative_path(config)}'
    return Table(title, tuple(LABELS.values()), {COLUMN: (COLUMN, )}, entries)


def best(cells: Mapping[CellPlace, Cell], seeds: Sequence[int]) -> RowName | None:
    """Returns the point with the highest mean among those that have a value for every seed; the first of equals."""
    complete = {row: cell.mean for (row, _), cell in cells.items() if len(cell.values) == len(seeds)}
    return max(complete, key=complete.get, default=None)


def best_command(search: Table, row: RowName) -> str:
    """Returns the command that trains with the settings of ``row`` on all images that are meant for training."""
    run = next(entry.run for entry in search.entries if entry.row == row)
    paths = map(relative_path, (TOOLS / 'train.py', run.config))
    return command_line(['python', *paths, '--cfg-options', *run.settings])


def report(search: Table, cells: Mapping[CellPlace, Cell], seeds: Sequence[int]) -> str:
    """Returns the search as Markdown: the result of each point, the best in bold, and the command that uses it."""
    winner, left = best(cells, seeds), sum(len(seeds) - len(c.values) - len(c.failed) for c in cells.values())
    rows = [[*row, cell_text(cells[row, COLUMN], len(seeds))] for row in rows_of(search)]
    rows = [[f'**{part}**' if tuple(row[:-1]) == winner and part else part for part in row] for row in rows]
    lines = [f'# {search.title}', '', markdown_table([*search.labels, f'{COLUMN} (%)'], rows, left=0), '',
             f'Seeds {", ".join(map(str, seeds))}; mean ± standard deviation. No test image was used.']
    if failed := failures(cells):
        lines += ['', *failed]
    if left:
        lines += ['', f'{left} of {len(cells) * len(seeds)} runs are not done yet.']
    if winner:
        lines += ['', f'Best{" so far" if left else ""}, as a run without --search-split:', '',
                  f'    {best_command(search, winner)}']
    return '\n'.join(lines) + '\n'


def as_csv(search: Table, cells: Mapping[CellPlace, Cell]) -> str:
    """Returns the search as CSV, with a line for each point."""
    return to_csv([[*search.labels, 'mean', 'standard deviation', 'seeds', 'failed'], *(
        [*row, cells[row, COLUMN].mean, cells[row, COLUMN].std, len(cells[row, COLUMN].values),
         len(cells[row, COLUMN].failed)] for row in rows_of(search))])


def as_json(search: Table, cells: Mapping[CellPlace, Cell], seeds: Sequence[int]) -> dict:
    """Returns all of the search, for JSON."""
    winner = best(cells, seeds)
    return dict(title=search.title, seeds=list(seeds), points=cells_as_json(search, cells, {}),
                best=winner and dict(zip(search.labels, winner)), command=winner and best_command(search, winner))


def curves(search: Table, cells: Mapping[CellPlace, Cell]) -> list[Point]:
    """Returns accuracy by learning rate as points to draw, a series for each gate prior and number of prompts."""
    points = []
    for (lr, *rest), cell in ((row, cell) for (row, _), cell in cells.items()):
        named = [f'{name} {value}' for name, value in zip(search.labels[1:], rest) if value]
        points.append(Point('', ', '.join(named) or 'accuracy', float(lr), cell.mean, cell.std, len(cell.values)))
    return points

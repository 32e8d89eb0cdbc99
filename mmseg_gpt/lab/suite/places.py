"""The place of a run in a figure, by the settings it was trained with: its ViT, its method and its task."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...checks.checkpoint import KINDS, data
from ...models.vit import ARCHS
from ...recipes.methods import METHODS, method_of
from ...recipes.tasks import ADE20K, TASKS
from ...recipes.titles import title
from ...recipes.vits import VITS, settings_of_vit
from ...settings import type_name, unwrapped_datasets
from ..compare import ground_differences
from ..finished import FinishedRun, by_seed, differing, in_words
from ..runs import SETTINGS, Run
from .plans import BLOCK, PROMPTS, Entry, Table, each, groups_of_figure_6
from .tables import Cell, CellPlace, column_means

KNOWN = TASKS | ADE20K


class Axis(NamedTuple):
    """What runs are put side by side by.

    Attributes:
        title: The title of the figure.
        x: As in :class:`Table`.
        value: Where a run stands on the axis, by its backbone; None for bars.
        setting: The setting that may differ within a line, besides the seed.
    """
    title: str
    x: str = ''
    value: Callable[[dict], int] | None = None
    setting: str = ''


def prompts_in_all(backbone: dict) -> int:
    """Returns how many prompts a ViT has; with VPT-deep, each block has some of its own."""
    arch, method = backbone.get('arch', 'base'), METHODS.get(method_of(backbone))
    depth = (ARCHS[arch] if isinstance(arch, str) else arch)['num_layers']
    return backbone['prompt'].get('num_tokens', 100) * (depth if method and method.each_block else 1)


AXES = {
    'start': Axis('Results by the first block with prompts', BLOCK, lambda backbone: backbone.get('start_block', 0) + 1,
                  SETTINGS['start']),
    'prompts': Axis('Results by the number of prompts', PROMPTS, prompts_in_all, SETTINGS['prompts']),
    'datasets': Axis('Results by dataset'),
    'groups': Axis('Results by group of datasets'),
}


def table_of(runs: Sequence[FinishedRun], by: str) -> tuple[Table, dict[CellPlace, Cell], list[str]]:
    """Puts runs into a table: a row for each ViT and method, and for lines for each task.

    Args:
        runs: Finished runs of any kind.
        by: One of ``AXES``.

    Returns:
        The table, what was measured by row and column, and notes for the reader.

    Raises:
        ValueError: a run has no place in it, or two have the same and are not two seeds of one run.
    """
    axis = AXES[by]
    at: dict[CellPlace, list[FinishedRun]] = {}
    entries: dict[CellPlace, Entry] = {}
    for run in runs:
        entry = entry_of(run, axis)
        at.setdefault((entry.row, entry.column), []).append(run)
        entries.setdefault((entry.row, entry.column), entry)
    cells = {(row, column): cell_of(found, ' '.join(title(part) for part in (*row, axis.x, column) if part))
             for (row, column), found in at.items()}
    labels = ('SSL', 'METHOD', 'TASK') if axis.x else ('SSL', 'METHOD')
    table = Table(axis.title, labels, each(sorted({column for _, column in at}, key=order)), list(entries.values()),
                  x=axis.x, bars=not axis.x, panels='TASK' if axis.x else 'SSL')
    if by == 'groups':
        table = in_groups(table, cells)
    notes = unequal_in_line(at, axis.setting) if axis.x else unequal_in_column(at)
    return table, cells, [*notes, *elsewhere(runs)]


def entry_of(run: FinishedRun, axis: Axis) -> Entry:
    """Returns the place of a run.

    Raises:
        ValueError: its backbone is none of ours, or has no prompts where these are what is compared.
    """
    backbone = run.settings['model'].get('backbone') or {}
    if type_name(backbone) not in KINDS:
        raise ValueError(f'{run.folder}: its backbone is no GatedPromptViT, so it has no place in this figure')
    if axis.value and not backbone.get('prompt'):
        raise ValueError(f'{run.folder} has no prompts, so it has no place in a figure by {axis.x}')
    vit, method, task = vit_of(backbone), method_of(backbone), task_of(run.settings)
    row, column = ((vit, method, task), str(axis.value(backbone))) if axis.value else ((vit, method), task)
    return Entry(vit, method, task, Run(str(run.folder), ''), row, column, run.score)


def cell_of(runs: list[FinishedRun], what: str) -> Cell:
    """Returns the scores of runs that differ in their seeds only."""
    return Cell({seed: run.numbers[run.score] for seed, run in by_seed(runs, what).items()}, {})


def order(column: str) -> tuple:
    """Returns what columns are sorted by: numbers by size, tasks as in the table of tasks, others after them."""
    known = list(KNOWN)
    return (int(column), ) if column.isdecimal() else (known.index(column) if column in known else len(known), column)


def in_groups(table: Table, cells: dict[CellPlace, Cell]) -> Table:
    """Returns the table with means of groups of tasks as columns; tasks of no group have columns of their own.

    Raises:
        ValueError: no row has all tasks of any group.
    """
    groups = groups_of_figure_6()
    alone = [task for task in table.columns if not any(task in tasks for tasks in groups.values())]
    table = table._replace(columns=groups | each(alone))
    whole = {column for (_, column), cell in column_means(table, cells).items() if cell.values}
    if not whole:
        task = table.entries[0].task
        group = next(name for name, tasks in groups.items() if task in tasks)
        raise ValueError(f'no group of datasets is complete: {group} is the mean of {", ".join(groups[group])}. --by '
                         'datasets draws each dataset')
    return table._replace(columns={name: tasks for name, tasks in table.columns.items() if name in whole})


def unequal_in_line(at: dict[CellPlace, list[FinishedRun]], setting: str) -> list[str]:
    """Returns a note for each run of a line that differs in more than its seed and the ``setting`` on the axis."""
    notes, first = [], {}
    for (row, _), (run, *_) in at.items():
        one = first.setdefault(row, run)
        if changed := {key: values for key, values in differing(one, run).items() if key != setting}:
            notes.append(f'{run.folder} differs from {one.folder} in {in_words(changed)}')
    return notes


def unequal_in_column(at: dict[CellPlace, list[FinishedRun]]) -> list[str]:
    """Returns a note for each bar that stands beside one with other data, batches or iterations."""
    notes, first = [], {}
    for (_, column), (run, *_) in at.items():
        one = first.setdefault(column, run)
        if changed := ground_differences(one, run):
            notes.append(f'{run.folder} and {one.folder} are not alike in {in_words(changed)}')
    return notes


def elsewhere(runs: Sequence[FinishedRun]) -> list[str]:
    """Returns a note for each folder of data whose name is not that of the dataset it is taken for."""
    folders: dict[str, str] = {}
    for run in runs:
        dataset, task = next(unwrapped_datasets(run.settings['test_dataloader']['dataset'])), task_of(run.settings)
        if task in KNOWN and data(dataset)[1] != Path(KNOWN[task].data_root).name:
            folders[str(dataset.get('data_root'))] = task
    return [f'{folder} is taken for {title(task)}, as its dataset has that type' for folder, task in folders.items()]


def vit_of(backbone: dict) -> str:
    """Returns the name of the pretrained ViT in experiments, or else the name of its file."""
    checkpoint = (backbone.get('init_cfg') or {}).get('checkpoint')
    name = Path(str(checkpoint)).name
    return published().get(name, name) if checkpoint else 'random weights'


@functools.cache
def published() -> dict[str, str]:
    """Returns the names of pretrained ViTs by the names of their files."""
    return {Path(settings_of_vit(name)['init_cfg']['checkpoint']).name: name for name in VITS}


def task_of(settings: dict) -> str:
    """Returns the name of the task in the table of tasks, or else the folder of the dataset."""
    dataset = next(unwrapped_datasets(settings['test_dataloader']['dataset']))
    kind, folder = data(dataset)
    kind = kind.rpartition('.')[2]
    for name, task in KNOWN.items():
        if task.kind == kind and (kind != 'VTABTask' or Path(task.data_root).name == folder):
            return name
    return dataset.get('data_root') or kind

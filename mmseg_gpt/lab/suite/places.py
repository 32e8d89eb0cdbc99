"""Which place a run has in a figure, by the settings it was trained with: its ViT, its method and its task."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...checks.checkpoint import data
from ...models.vit import ARCHS
from ...recipes.experiment import settings_of_vit, vits
from ...recipes.tasks import TASKS
from ...settings import type_name, unwrapped_datasets
from ..compare import ground_differences
from ..finished import FinishedRun, by_seed, differing, in_words
from ..run import SETTINGS, Run
from .plans import BLOCK, PROMPTS, Entry, Table, each, groups_of_figure_6
from .tables import NAMES, Cell, Place, filled

# By the type of prompts and whether there are temperatures.
METHODS = {
    ('ShallowPrompt', False): 'vpt-shallow', ('DeepPrompt', False): 'vpt-deep', ('GatedPrompt', False): 'gates-only',
    ('ShallowPrompt', True): 'temperatures-only', ('GatedPrompt', True): 'gpt', ('HardGatedPrompt', True): 'hard-gates',
}
ADE20K = 'ADEChallengeData2016'


class Axis(NamedTuple):
    """What runs are put side by side by.

    Attributes:
        title: Of the figure.
        x: As in :class:`Table`.
        value: The number of a run; none for bars.
        setting: What may differ within a line, besides the seed.
    """
    title: str
    x: str = ''
    value: Callable[[dict], int] | None = None
    setting: str = ''


def prompts_in_all(backbone: dict) -> int:
    """How many a ViT has; VPT-deep has some in each block."""
    arch = backbone.get('arch', 'base')
    depth = (ARCHS[arch] if isinstance(arch, str) else arch)['num_layers']
    return backbone['prompt'].get('num_tokens', 100) * (depth if method_of(backbone) == 'vpt-deep' else 1)


AXES = {
    'start': Axis('Results by the first block with prompts', BLOCK, lambda backbone: backbone.get('start_block', 0) + 1,
                  SETTINGS['start']),
    'prompts': Axis('Results by the number of prompts', PROMPTS, prompts_in_all, SETTINGS['prompts']),
    'datasets': Axis('Results by dataset'),
    'groups': Axis('Results by group of datasets'),
}


def table_of(runs: Sequence[FinishedRun], by: str) -> tuple[Table, dict[Place, Cell], list[str]]:
    """Puts runs into a table: a row for each ViT and method, and for lines for each task.

    Args:
        runs: Any.
        by: One of ``AXES``.

    Returns:
        tuple: The table, what was measured by row and column, and what is to be known of it.

    Raises:
        ValueError: a run has no place in it, or two have the same and are not two seeds of one run.
    """
    axis = AXES[by]
    at: dict[Place, list[FinishedRun]] = {}
    entries: dict[Place, Entry] = {}
    for run in runs:
        entry = entry_of(run, axis)
        at.setdefault((entry.row, entry.column), []).append(run)
        entries.setdefault((entry.row, entry.column), entry)
    cells = {(row, column): cell_of(found, ' '.join(NAMES.get(part, part) for part in (*row, axis.x, column) if part))
             for (row, column), found in at.items()}
    labels = ('SSL', 'METHOD', 'TASK') if axis.x else ('SSL', 'METHOD')
    table = Table(axis.title, labels, each(sorted({column for _, column in at}, key=order)), list(entries.values()),
                  x=axis.x, bars=not axis.x, panels='TASK' if axis.x else 'SSL')
    if by == 'groups':
        table = in_groups(table, cells)
    notes = unequal_in_line(at, axis.setting) if axis.x else unequal_in_column(at)
    return table, cells, [*notes, *elsewhere(runs)]


def entry_of(run: FinishedRun, axis: Axis) -> Entry:
    """The place of a run.

    Raises:
        ValueError: its backbone is none of ours, or has no prompts where these are what is compared.
    """
    backbone = run.settings['model'].get('backbone') or {}
    if type_name(backbone) != 'GatedPromptViT':
        raise ValueError(f'{run.folder}: its backbone is no GatedPromptViT, so it has no place in this figure')
    if axis.value and not backbone.get('prompt'):
        raise ValueError(f'{run.folder} has no prompts, so it has no place in a figure by {axis.x}')
    vit, method, task = vit_of(backbone), method_of(backbone), task_of(run.settings)
    row, column = ((vit, method, task), str(axis.value(backbone))) if axis.value else ((vit, method), task)
    return Entry(vit, method, task, Run(str(run.folder), ''), row, column, run.score)


def cell_of(runs: list[FinishedRun], what: str) -> Cell:
    """The scores of runs that differ in their seeds only."""
    return Cell({seed: run.numbers[run.score] for seed, run in by_seed(runs, what).items()}, {})


def order(column: str) -> tuple:
    """Where a column stands: tasks as in Table 5 with others after them, numbers by size."""
    known = [*TASKS, 'ade20k']
    return (int(column), ) if column.isdecimal() else (known.index(column) if column in known else len(known), column)


def in_groups(table: Table, cells: dict[Place, Cell]) -> Table:
    """The table with columns that are means of groups of tasks; tasks of no group have columns of their own.

    Raises:
        ValueError: no row has all tasks of any group.
    """
    groups = groups_of_figure_6()
    alone = [task for task in table.columns if not any(task in tasks for tasks in groups.values())]
    table = table._replace(columns=groups | each(alone))
    whole = {column for (_, column), cell in filled(table, cells).items() if cell.values}
    if not whole:
        task = table.entries[0].task
        group = next(name for name, tasks in groups.items() if task in tasks)
        raise ValueError(f'no group of datasets is complete: {group} is the mean of {", ".join(groups[group])}. --by '
                         'datasets draws each dataset')
    return table._replace(columns={name: tasks for name, tasks in table.columns.items() if name in whole})


def unequal_in_line(at: dict[Place, list[FinishedRun]], setting: str) -> list[str]:
    """A note for each run of a line that differs in more than the ``setting`` on the axis and in its seed."""
    notes, first = [], {}
    for (row, _), (run, *_) in at.items():
        one = first.setdefault(row, run)
        if changed := {key: values for key, values in differing(one, run).items() if key != setting}:
            notes.append(f'{run.folder} differs from {one.folder} in {in_words(changed)}')
    return notes


def unequal_in_column(at: dict[Place, list[FinishedRun]]) -> list[str]:
    """A note for each bar that stands beside one with other data, batches or iterations."""
    notes, first = [], {}
    for (_, column), (run, *_) in at.items():
        one = first.setdefault(column, run)
        if changed := ground_differences(one, run):
            notes.append(f'{run.folder} and {one.folder} are not alike in {in_words(changed)}')
    return notes


def elsewhere(runs: Sequence[FinishedRun]) -> list[str]:
    """A note for each folder of data that is not called as the dataset for which it is taken."""
    folders: dict[str, str] = {}
    for run in runs:
        dataset, task = next(unwrapped_datasets(run.settings['test_dataloader']['dataset'])), task_of(run.settings)
        usual = TASKS[task].data_root if task in TASKS else ADE20K if task == 'ade20k' else None
        if usual and data(dataset)[1] != Path(usual).name:
            folders[str(dataset.get('data_root'))] = task
    return [f'{folder} is taken for {NAMES.get(task, task)}, as its dataset has that type' for folder, task in
            folders.items()]


def vit_of(backbone: dict) -> str:
    """The name of the pretrained ViT in experiments, or else that of its file."""
    checkpoint = (backbone.get('init_cfg') or {}).get('checkpoint')
    name = Path(str(checkpoint)).name
    return published().get(name, name) if checkpoint else 'random weights'


@functools.cache
def published() -> dict[str, str]:
    """Returns the names of pretrained ViTs by those of their files."""
    return {Path(settings_of_vit(name)['init_cfg']['checkpoint']).name: name for name in vits()}


def method_of(backbone: dict) -> str:
    """The name of the method in experiments, or else a description."""
    prompt, temperature = backbone.get('prompt'), backbone.get('temperature', False) is not False  # {} means defaults
    if not backbone.get('frozen', True):
        return 'full' if not (prompt or temperature) else 'full with prompts or temperatures'
    if not prompt:
        return 'linear' if not temperature else 'temperatures without prompts'
    described = f'{prompt["type"]}{" and temperatures" if temperature else ""}'
    return METHODS.get((prompt['type'], temperature), described)


def task_of(settings: dict) -> str:
    """The name of the task in experiments, 'ade20k', or else the folder of the dataset."""
    dataset = next(unwrapped_datasets(settings['test_dataloader']['dataset']))
    kind, folder = data(dataset)
    kind = kind.rpartition('.')[2]
    for name, task in TASKS.items():
        if task.kind == kind and (kind != 'VTABTask' or Path(task.data_root).name == folder):
            return name
    return 'ade20k' if kind == 'ADE20KDataset' else dataset.get('data_root') or kind

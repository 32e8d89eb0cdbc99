"""Which runs a table or a figure of the paper consists of."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ...recipes.methods import METHODS, tokens_per_set
from ...recipes.tasks import ADE20K, TASKS
from ...recipes.vits import SELF_SUPERVISED, VITS
from ...resources import CONFIGS
from ..runs import Run, with_settings
from .printed import GROUPS_OF_FIGURE_6, GROUPS_OF_VTAB, MIOU

FGVC = tuple(task for task, known in TASKS.items() if known.group == 'fgvc')
VTAB = tuple(task for task, known in TASKS.items() if known.group != 'fgvc')
GROUPS = ('natural', 'specialized', 'structured')  # of VTAB-1K
COMPARED = ('vpt-shallow', 'vpt-deep', 'gpt')  # in most tables of the paper
ACCURACY = 'accuracy/top1'
BLOCK, PROMPTS = 'first block with prompts', 'prompts in all'


class Entry(NamedTuple):
    """A number that is measured for a table.

    Attributes:
        vit: The pretrained ViT.
        method: What of it is trained.
        task: What is learnt.
        run: What gives the number, for one seed.
        row: The name of its row, in parts; for a figure, its series.
        column: The task, or what else the table has columns for.
        number: Which of the run's numbers it is.
    """
    vit: str
    method: str
    task: str
    run: Run
    row: tuple[str, ...]
    column: str
    number: str = ACCURACY


class Table(NamedTuple):
    """A table or a figure.

    Attributes:
        title: What it shows.
        labels: What the parts of a row's name are.
        columns: By title, the columns of entries whose mean is shown.
        entries: All its numbers.
        total_params: Whether the paper counts the parameters of a row.
        x: For a figure of lines, what the columns are values of.
        bars: Whether it is a figure of bars, one for each column.
        panels: For a figure, which of the labels its panels are for.
    """
    title: str
    labels: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    entries: list[Entry]
    total_params: bool = False
    x: str = ''
    bars: bool = False
    panels: str = ''


def classification(method: str, vit: str, task: str) -> Run:
    """Returns an experiment of classification, with small checkpoints where the ViT is frozen."""
    name = f'cls_{method}_{vit}_{task}'
    return Run(name, name, ('default_hooks.checkpoint.adapter_only=True', ) if METHODS[method].frozen else ())


def segmentation(method: str, vit: str, prompts: str = '') -> Run:
    """Returns a run on ADE20K; ``prompts`` is the part of the config's name that tells their number."""
    name = f'setr_pup_{METHODS[method].ade20k or method}{prompts}_{vit}_ade20k'
    return Run(name, str(CONFIGS / f'{name}.py'), tta=True)


def each(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Maps each name to itself: one column per entry, and no mean of several."""
    return {column: (column, ) for column in columns}


def table_5_entries(tasks: Sequence[str], methods: Sequence[str]) -> list[Entry]:
    """Returns the experiments with the hyperparameters of Table 5, on each of ``tasks``."""
    return [Entry(vit, method, task, classification(method, vit, task), (vit, method), task)
            for vit in SELF_SUPERVISED for method in methods for task in tasks]


def fgvc(methods: Sequence[str] = COMPARED) -> Table:
    """Returns Table 1."""
    columns = each(FGVC) | dict(AVG=FGVC)
    return Table('Table 1. Accuracy on FGVC', ('SSL', 'METHOD'), columns, table_5_entries(FGVC, methods), True)


def group_of_vtab(group: str) -> tuple[str, ...]:
    """Returns the tasks of a group."""
    return tuple(task for task in VTAB if TASKS[task].group == group)


def vtab(methods: Sequence[str] = COMPARED) -> Table:
    """Returns Table 2. Its AVG is the mean over the 19 tasks, see :mod:`.printed`."""
    columns = dict(zip(GROUPS_OF_VTAB, (*map(group_of_vtab, GROUPS), VTAB)))
    return Table('Table 2. Accuracy on VTAB-1K', ('SSL', 'METHOD'), columns, table_5_entries(VTAB, methods), True)


def ade20k(prompts: str = '', title: str = 'Table 3. mIoU on ADE20K with SETR-PUP') -> Table:
    """Returns Table 3; with ``prompts='-24'``, Table 6."""
    deep, others = ('2 x 12', '24') if prompts else ('10 x 12', '100')
    entries = []
    for vit in SELF_SUPERVISED:
        for method in COMPARED:
            row = (vit, method, deep if METHODS[method].each_block else others)
            entries += [Entry(vit, method, 'ade20k', segmentation(method, vit, prompts), row, column, number)
                        for column, number in zip(MIOU, ('mIoU', 'tta/mIoU'))]
    return Table(title, ('SSL', 'METHOD', '# OF PTS'), each(MIOU), entries)


def table4() -> Table:
    """Returns Table 4, of hard gates."""
    entries = [Entry('mae', method, task, classification(method, 'mae', task), ('mae', method, '100'), task)
               for method in ('vpt-shallow', 'hard-gates', 'gpt') for task in ('cub', 'flowers')]
    return Table('Table 4. Hard gates', ('SSL', 'METHOD', '# OF PTS'), each(('cub', 'flowers')), entries)


def with_prompts(method: str, vit: str, task: str, prompts: int) -> Run:
    """Returns an experiment with so many prompts in all, which VPT-deep divides among the blocks."""
    return with_settings(classification(method, vit, task), prompts=tokens_per_set(method, prompts, VITS[vit].blocks))


def entries_by_prompts(vits: Sequence[str], methods: Sequence[str], tasks: Sequence[str],
                       prompts: Sequence[int]) -> list[Entry]:
    """Returns experiments by ViT, number of prompts in all, method and task."""
    entries = []
    for vit, number, method, task in itertools.product(vits, prompts, methods, tasks):
        blocks = VITS[vit].blocks
        said = f'{number // blocks} x {blocks}' if METHODS[method].each_block else str(number)
        entries.append(Entry(vit, method, task, with_prompts(method, vit, task, number), (vit, method, said), task))
    return entries


def table7() -> Table:
    """Returns Table 7, of fewer prompts on FGVC."""
    return Table('Table 7. Accuracy on FGVC with fewer prompts, MAE', ('SSL', 'METHOD', '# OF PTS'),
                 each(FGVC) | dict(AVG=FGVC), entries_by_prompts(('mae', ), ('vpt-deep', 'gpt'), FGVC, (24, 48, 96)))


def table8() -> Table:
    """Returns Table 8, of other sizes of ViT."""
    tasks = ('cub', 'flowers')
    return Table('Table 8. ViT-L (MAE) and ViT-S (MoCo v3)', ('SSL', 'METHOD', '# OF PTS'), each(tasks),
                 entries_by_prompts(('mae-l', 'mocov3-s'), COMPARED, tasks, (48, )))


def figure1() -> Table:
    """Returns Figure 1: accuracy by the block at which prompts enter, counted from 1; rates are of section A.2."""
    entries = []
    for task, vit, block in itertools.product(('cub', 'kitti_dist'), ('supervised', 'mocov3', 'mae'), range(12)):
        lr = 1. if (vit, task) == ('mocov3', 'cub') else 0.1
        run = with_settings(classification('vpt-shallow', vit, task), lr=lr, start=block)
        entries.append(Entry(vit, 'vpt-shallow', task, run, (vit, task), str(block + 1)))
    columns = each(str(block + 1) for block in range(12))
    return Table('Figure 1. Accuracy by the first block with prompts', ('SSL', 'TASK'), columns, entries, x=BLOCK,
                 panels='TASK')


def figure6(title: str = 'Figure 6. What gates and temperatures bring',
            columns: dict[str, tuple[str, ...]] | None = None) -> Table:
    """Returns Figure 6: VPT-shallow, with gates, and with temperatures too, by group; by ``columns`` for Figure 8."""
    entries = []
    for vit, method in itertools.product(SELF_SUPERVISED, ('vpt-shallow', 'gates-only', 'gpt')):
        runs = {task: classification(method, vit, task) for task in (*VTAB, *FGVC)}
        entries += [Entry(vit, method, task, run, (vit, method), task) for task, run in runs.items()]
        entries.append(Entry(vit, method, 'ade20k', segmentation(method, vit), (vit, method), 'ade20k', 'mIoU'))
    return Table(title, ('SSL', 'METHOD'), columns or groups_of_figure_6(), entries, bars=True, panels='SSL')


def groups_of_figure_6() -> dict[str, tuple[str, ...]]:
    """Returns the tasks of each group of bars."""
    return dict(zip(GROUPS_OF_FIGURE_6, (*map(group_of_vtab, GROUPS), FGVC, ('ade20k', ))))


def figure7() -> Table:
    """Returns Figure 7: accuracy by the number of prompts in all."""
    counts = dict(gpt=(1, 3, 6, 12, 24, 48, 96), **{'vpt-deep': (12, 24, 48, 96)})
    entries = [Entry('mae', method, 'cars', with_prompts(method, 'mae', 'cars', n), ('mae', method), str(n))
               for method, numbers in counts.items() for n in numbers]
    return Table('Figure 7. Accuracy on Stanford Cars by the number of prompts', ('SSL', 'METHOD'),
                 each(map(str, counts['gpt'])), entries, x=PROMPTS)


PLANS: dict[str, Callable[[], Table]] = dict(
    fgvc=fgvc, vtab=vtab, ade20k=ade20k, table4=table4,
    table6=lambda: ade20k('-24', 'Table 6. mIoU on ADE20K with 24 prompts'), table7=table7, table8=table8,
    figure1=figure1, figure6=figure6, figure7=figure7,
    figure8=lambda: figure6('Figure 8. What gates and temperatures bring, by dataset', each((*VTAB, *FGVC, 'ade20k'))))


WITH_MORE_ROWS = dict(fgvc=fgvc, vtab=vtab)  # tables to which rows of further methods can be added


def plan(name: str, methods: Iterable[str] = ()) -> Table:
    """Returns a table or figure of ``PLANS``, Tables 1 and 2 with rows for further ``methods`` that are asked for."""
    others = [method for method in methods if method in METHODS and method not in COMPARED]
    return WITH_MORE_ROWS[name]((*COMPARED, *others)) if others and name in WITH_MORE_ROWS else PLANS[name]()


def select(entries: Iterable[Entry], vits: Sequence[str], methods: Sequence[str], tasks: Sequence[str]) -> list[Entry]:
    """Returns the entries of some ViTs, methods and tasks (or groups of VTAB-1K); an empty choice means all.

    Raises:
        ValueError: no entry has one of these; the message names what there is.
    """
    entries = list(entries)
    for what, chosen, names in (('ViT', vits, lambda e: {e.vit}), ('method', methods, lambda e: {e.method}),
                                ('task', tasks, tasks_of)):
        known = {name for entry in entries for name in names(entry)}
        if unknown := set(chosen) - known:
            raise ValueError(f'nothing has the {what} {", ".join(sorted(unknown))}; known: {", ".join(sorted(known))}')
        entries = [entry for entry in entries if not chosen or set(chosen) & names(entry)]
    return entries


def tasks_of(entry: Entry) -> set[str]:
    """Returns the task and its group."""
    return {entry.task, (TASKS | ADE20K)[entry.task].group}


def runs_of(entries: Iterable[Entry], seeds: Iterable[int]) -> list[Run]:
    """Returns each run once; those with the first seed come first, so that a table is soon complete."""
    runs = dict.fromkeys(entry.run for entry in entries)
    return [run.with_seed(seed) for seed in seeds for run in runs]


def runs_in(tables: Iterable[Table], seeds: Iterable[int]) -> list[Run]:
    """Returns each run of several tables once, in the same order."""
    return runs_of((entry for table in tables for entry in table.entries), seeds)


def with_options(table: Table, settings: Sequence[str], options: Sequence[str], suffix: str = '') -> Table:
    """Returns a table whose runs have further settings and options, and folders whose names end in ``suffix``."""
    entries = [entry._replace(run=entry.run._replace(
        name=entry.run.name + suffix, settings=(*entry.run.settings, *settings), options=tuple(options)))
        for entry in table.entries]
    return table._replace(entries=entries)

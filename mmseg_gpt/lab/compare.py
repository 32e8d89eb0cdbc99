"""Several runs side by side: scores, parameters, memory, time, and where their classes differ."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from ..analysis.series import mean_and_std
from ..resources import command_of
from ..settings import is_under
from ..wording import markdown_table
from .finished import ITERATIONS, FinishedRun, by_seed, differing, in_words

NAMES = {'mIoU': 'mIoU SS', 'tta/mIoU': 'mIoU MS', 'accuracy/top1': 'accuracy'}
SPREAD = ', standard deviation'
# Settings without which scores or costs mean something else.
GROUND = (ITERATIONS, 'train_dataloader', 'test_dataloader', 'test_evaluator', 'tta_pipeline', 'data_preprocessor',
          'model.data_preprocessor', 'model.test_cfg')


class Compared(NamedTuple):
    """Runs under one name, which differ in their seeds only."""
    name: str
    runs: list[FinishedRun]


class Difference(NamedTuple):
    """The IoU of a class in one run, the mean over its seeds, and against that in the first run; in percent."""
    class_name: str
    name: str
    iou: float | None
    difference: float | None


def check(compared: Sequence[Compared]) -> list[str]:
    """Returns warnings where runs cannot simply be compared: other data, crops, batches or iterations.

    Raises:
        ValueError: those of one name differ in more than their seeds, or segmentation stands beside classification.
    """
    for name, runs in compared:
        by_seed(runs, name)
    (first, (one, *_)), *rest = compared
    warnings = []
    for name, (other, *_) in rest:
        if other.score != one.score:
            raise ValueError(f'{first} has {one.score} and {name} has {other.score}: compare runs of one kind')
        changed = ground_differences(one, other)
        if one.per_class and other.per_class and (
                set(one.per_class['mIoU']) != set(other.per_class['mIoU'])):
            changed['number of classes'] = (len(one.per_class['mIoU']), len(other.per_class['mIoU']))
        if changed:
            warnings.append(f'{first} and {name} are not alike in {in_words(changed, 5)}')
        if None not in (one.memory, other.memory) and one.on_gpu != other.on_gpu:
            warnings.append(f'of {first} and {name}, the memory of one is a GPU\'s, of the other that of a process')
    for name, runs in compared:
        without = [str(run.folder) for run in runs if 'tta/mIoU' not in run.numbers]
        if 0 < len(without) < len(runs):
            warnings.append(f'{name} has no mIoU MS, as {", ".join(without)} has no metrics_tta.json')
        if runs[0].parameters is None:
            warnings.append(f'{runs[0].folder}/metrics.json does not count parameters: test again with '
                            f'{command_of("test")}')
    return warnings


def ground_differences(one: FinishedRun, other: FinishedRun) -> dict[str, tuple[object, object]]:
    """Returns in what two runs differ, apart from their methods, so that scores or costs mean something else."""
    return {key: values for key, values in differing(one, other).items()
            if is_under(key, GROUND) and not same_folder(key, *values)}


def same_folder(key: str, one: object, other: object) -> bool:
    """Returns whether two settings are one folder at two places: the last part stays when data is moved."""
    return key.endswith('data_root') and None not in (one, other) and Path(one).name == Path(other).name


def table(compared: Sequence[Compared]) -> list[dict]:
    """Returns a row for each name: scores (mean and standard deviation over seeds), parameters, costs, iterations.

    Returns:
        Rows with the same keys. What was not measured for every seed is None, and so is the standard deviation of one
        seed.
    """
    scores = [number for number in NAMES if any(number in run.numbers for _, runs in compared for run in runs)]
    rows = []
    for name, runs in compared:
        row: dict[str, object] = dict(run=name)
        for number in scores:
            values = [run.numbers[number] for run in runs if number in run.numbers]
            row[f'{NAMES[number]} (%)'], row[f'{NAMES[number]}{SPREAD}'] = mean_and_std(
                values if len(values) == len(runs) else ())
        counted = runs[0].parameters
        memory, seconds = ([getattr(run, what) for run in runs] for what in ('memory', 'seconds'))
        rows.append(row | {
            'trained parameters': counted and counted['trained'],
            'share (%)': counted and 100 * counted['trained'] / counted['total'],
            'peak memory (MiB)': None if None in memory else max(memory),
            'seconds per iteration': None if None in seconds else mean(seconds),
            'iterations': runs[0].iterations, 'seeds': len(runs)})
    return rows


def class_differences(compared: Sequence[Compared], number: str = 'mIoU') -> list[Difference]:
    """Returns the IoU of each class of the first run, in each of the runs.

    Args:
        compared: The first is what the others are compared with.
        number: 'mIoU', or 'tta/mIoU' for multi-scale tests.
    """
    if not all(number in run.per_class for _, runs in compared for run in runs):
        return []
    found = []
    for class_name in compared[0].runs[0].per_class[number]:
        reference = None
        for i, (name, runs) in enumerate(compared):
            values = [run.per_class[number].get(class_name) for run in runs]
            iou = None if None in values else mean(values)
            reference = iou if i == 0 else reference
            found.append(Difference(class_name, name, iou, None if None in (iou, reference) else iou - reference))
    return found


def largest(differences: Sequence[Difference], most: int) -> list[str]:
    """Returns the classes in which some run differs most from the first, those with the highest mean gain first."""
    by_class: dict[str, list[float]] = {}
    for found in differences:
        if found.difference is not None and found.name != differences[0].name:
            by_class.setdefault(found.class_name, []).append(found.difference)
    chosen = sorted(by_class, key=lambda name: -max(map(abs, by_class[name])))[:most]
    return sorted(chosen, key=lambda name: -mean(by_class[name]))


def markdown(rows: Sequence[dict], warnings: Sequence[str]) -> str:
    """Returns the table as Markdown, with the warnings under it."""
    kept = [key for key in rows[0] if not key.endswith(SPREAD)]
    lines = []
    for row in rows:
        spread = {key.replace(SPREAD, ' (%)'): value for key, value in row.items() if key.endswith(SPREAD)}
        lines.append([shown(row[key], spread.get(key)) for key in kept])
    return '\n'.join([markdown_table(kept, lines), *(f'\nWarning: {warning}.' for warning in warnings)]) + '\n'


def shown(value: object, spread: float | None = None) -> str:
    """Returns a cell as it is printed; what was not measured is empty."""
    if value is None:
        return ''
    if spread is not None:
        return f'{value:.2f} ± {spread:.2f}'
    if isinstance(value, float):
        return f'{value:.3g}' if 0 < value < 1 else f'{value:,.2f}'
    return f'{value:,}' if isinstance(value, int) else str(value)

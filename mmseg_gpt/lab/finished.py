"""Reading a finished run: its settings and what it has given, from its work directory.

Settings are read from the checkpoint that was tested, where they are JSON: no file of a run is executed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..checkpoints.read import read_file, settings_in
from ..engine.resume import OUTSIDE, POINTER, named_checkpoint
from ..resources import command_of
from ..settings import TESTED, flatten, is_under, type_name
from .scalars import SCALARS, read_scalars

METRICS = {'': 'metrics.json', 'tta/': 'metrics_tta.json'}  # by the prefix that their numbers get
SCORES = ('mIoU', 'accuracy/top1')
# Settings that say where and how a run is carried out, not what comes of it. The weights that it begins with do decide
# that; those that it is resumed from are not in its config.
CIRCUMSTANCES = (*(set(OUTSIDE) - {'load_from'}), 'env_cfg', 'visualizer', 'log_processor', 'default_hooks.logger',
                 'default_hooks.visualization', 'test_evaluator.output_dir')
TF32 = 'env_cfg.tf32'  # what GPUs multiply is rounded or not, which is no circumstance
SAVING = tuple(f'default_hooks.checkpoint.{name}' for name in (
    'interval', 'adapter_only', 'max_keep_ckpts', 'filename_tmpl', 'save_optimizer'))
LOADING = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
ITERATIONS = 'iterations of the tested checkpoint'
WATCHING = ('TrackingHook', 'ValidationPicturesHook')  # hooks that change nothing


class FinishedRun(NamedTuple):
    """A training that has been tested.

    Attributes:
        folder: Its work directory.
        settings: The config it was trained with, as plain types, with the data and protocol it was tested with.
        seed: The seed of its training.
        iterations: The iteration after which the tested checkpoint was written; None if it was chosen by its score
            ('best_...').
        numbers: What tools/test.py measured in percent, by name; multi-scale with 'tta/' before it.
        per_class: The IoU of each class in percent (None for one that does not occur) by 'mIoU' and 'tta/mIoU'.
        parameters: How many are 'trained' and how many there are in 'total'; None if metrics.json does not say.
        memory: The most memory that one process had in training, in MiB; None if nothing was logged.
        on_gpu: Whether that is the GPU's memory.
        seconds: The median time of a training iteration; None if nothing was logged.
    """
    folder: Path
    settings: dict
    seed: int | None
    iterations: int | None
    numbers: dict[str, float]
    per_class: dict[str, dict[str, float | None]]
    parameters: dict[str, int] | None
    memory: float | None
    on_gpu: bool
    seconds: float | None

    @property
    def score(self) -> str:
        """The name of the number that counts, one of ``SCORES``."""
        return next(name for name in SCORES if name in self.numbers)


def read_run(folder: Path) -> FinishedRun:
    """Reads the work directory of a run.

    Raises:
        ValueError: something is missing, damaged, or of an earlier training; the message names it, and the command that
            makes it.
        CheckpointError: the checkpoint is damaged.
    """
    metrics = read_metrics(folder)
    path = tested_checkpoint(folder, metrics)
    checkpoint = read_file(path)
    settings = settings_in(checkpoint)
    if not settings:
        raise ValueError(f'{path} does not say with which settings it was trained: it is none of {command_of("train")}')
    numbers = {prefix + name: value for prefix, read in metrics.items() for name, value in numbers_in(read).items()}
    if not any(name in numbers for name in SCORES):
        raise ValueError(f'{folder / METRICS[""]} has neither {" nor ".join(SCORES)}, but {", ".join(numbers)}')
    logged = read_scalars(folder)[0] if any(folder.glob(SCALARS)) else []
    seconds = [line['time'] for line in logged if 'time' in line]
    memory = [line.get('progress/peak_memory_mib', line.get('memory')) for line in logged]
    meta = checkpoint['meta']
    if any(read.get('checkpoint_written', meta.get('time')) != meta.get('time') for read in metrics.values()):
        raise ValueError(f'{path} has been trained anew since it was tested. {how_to_test(folder)}')
    return FinishedRun(
        folder, as_tested(settings, metrics), meta.get('seed'),
        None if path.name.startswith('best_') else meta['iter'], numbers,
        {f'{prefix}mIoU': read['per_class'] for prefix, read in metrics.items() if read.get('per_class')},
        metrics[''].get('parameters'), max((value for value in memory if value is not None), default=None),
        any('memory' in line for line in logged), median(seconds) if seconds else None)


def read_metrics(folder: Path) -> dict[str, dict]:
    """Reads what tools/test.py wrote, by the keys of ``METRICS``; the multi-scale test need not have been made.

    Raises:
        ValueError: there is no test, or a file is damaged, or the two are of different checkpoints.
    """
    read, tested = {}, set()
    for prefix, name in METRICS.items():
        if (folder / name).is_file():
            try:
                read[prefix] = json.loads((folder / name).read_text(encoding='utf-8'))
                tested.add(Path(read[prefix]['checkpoint']).name)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f'{folder / name} is not what {command_of("test")} wrote ({error!r}): test '
                                 'again') from error
    if '' not in read:
        raise ValueError(f'{folder} has no {METRICS[""]}. {how_to_test(folder)}')
    if len(tested) > 1:
        raise ValueError(f'the tests in {folder} are of different checkpoints, {" and ".join(sorted(tested))}: test '
                         'one of them with and without --tta')
    return read


def as_tested(settings: dict, metrics: Mapping[str, dict]) -> dict:
    """Returns the settings of a training, with the data and protocol that it was tested with in the place of its own.

    Args:
        settings: The settings of the training; they stay where files of metrics are so old that they do not say how
            it was tested.
        metrics: What tools/test.py wrote, by the keys of ``METRICS``.

    Raises:
        ValueError: the single-scale and the multi-scale test are of different data.
    """
    tested = {prefix: read['tested'] for prefix, read in metrics.items() if 'tested' in read}
    datasets = [dict(each['test_dataloader']['dataset'], pipeline=None) for each in tested.values()]
    if any(dataset != datasets[0] for dataset in datasets):
        raise ValueError(f'{" and ".join(METRICS.values())} are of different data: test again, with and without --tta')
    if '' in tested:
        settings = settings | {key: tested[''].get(key) for key in TESTED}
        settings['model'] = settings['model'] | dict(test_cfg=tested['']['model_test_cfg'])
    if 'tta/' in tested:
        settings = settings | dict(tta_pipeline=tested['tta/']['test_dataloader']['dataset']['pipeline'])
    return settings


def any_checkpoint(folder: Path) -> Path | None:
    """Returns a checkpoint of a run, the last if it is known; None where there is none."""
    return named_checkpoint(folder / POINTER, folder) or next(iter(sorted(folder.glob('*.pth'))), None)


def settings_trained_with(folder: Path) -> dict:
    """Returns the settings of the run in a work directory; empty where it has no checkpoint yet.

    Raises:
        CheckpointError: its checkpoint is damaged.
    """
    path = any_checkpoint(folder)
    return settings_in(read_file(path)) if path else {}


def how_to_test(folder: Path) -> str:
    """Says which command makes metrics.json; or, where nothing has been trained, which one trains."""
    named = any_checkpoint(folder)
    if named is None:
        return f'Nor has it a checkpoint: {command_of("train", "CONFIG", "--work-dir", folder)} trains'
    if not settings_in(read_file(named)).get('test_dataloader'):
        return 'Its config has no test_dataloader, as that of a pretraining'
    config = next(iter(sorted(folder.glob('*.py'))), 'CONFIG')  # MMEngine writes it there
    return f'This makes it: {command_of("test", config, named, "--work-dir", folder)}'


def tested_checkpoint(folder: Path, metrics: Mapping[str, dict]) -> Path:
    """Finds the checkpoint that was tested: in the run's folder, which may have been moved, or where it was.

    Raises:
        ValueError: it is not there any more.
    """
    path = Path(metrics['']['checkpoint'])
    found = next((place for place in (folder / path.name, path) if place.is_file()), None)
    if found is None:
        raise ValueError(f'{folder / METRICS[""]} is of {path.name}, which is not there any more, and the settings of '
                         f'the run are in it. {how_to_test(folder)}')
    return found


def numbers_in(metrics: Mapping[str, object]) -> dict[str, float]:
    """Returns the numbers among what tools/test.py wrote."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def decisive(settings: dict) -> dict[str, object]:
    """Returns the settings that decide what comes of a run, by their dotted keys: all but how it is carried out."""
    if settings.get('resume'):  # its load_from is its own checkpoint
        settings = dict(settings, load_from=settings.get('started_from'))
    if settings.get('custom_hooks'):
        settings = dict(settings, custom_hooks=[
            hook for hook in settings['custom_hooks'] if type_name(hook) not in WATCHING])
    return {key: value for key, value in flatten(settings).items()
            if key == TF32 or not (is_under(key, CIRCUMSTANCES) or key.rpartition('.')[2] in LOADING)}


def differing(one: FinishedRun, other: FinishedRun) -> dict[str, tuple[object, object]]:
    """Returns in what two runs differ, with both values: decisive settings but for seeds, and tested iterations."""
    old, new = (decisive(run.settings) | {ITERATIONS: run.iterations} for run in (one, other))
    return {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not is_under(key, ('randomness', *SAVING))}


def in_words(differences: Mapping[str, tuple[object, object]], most: int = 3) -> str:
    """Says the first of some differences: ``optim_wrapper.optimizer.lr (0.1 and 1.0), and 2 more``."""
    said = [f'{key} ({old} and {new})' for key, (old, new) in list(differences.items())[:most]]
    return ', '.join(said) + (f', and {len(differences) - most} more' if len(differences) > most else '')


def by_seed(runs: list[FinishedRun], what: str) -> dict[int | None, FinishedRun]:
    """Returns runs that are the same but for their seeds, by seed.

    Args:
        runs: At least one.
        what: What they are called in messages.

    Raises:
        ValueError: two of them have the same seed, or differ in something else.
    """
    found: dict[int | None, FinishedRun] = {}
    for run in runs:
        if run.seed in found:
            raise ValueError(f'{found[run.seed].folder} and {run.folder} are both {what} with seed {run.seed}: give '
                             'one of them')
        if changed := differing(runs[0], run):
            raise ValueError(f'{runs[0].folder} and {run.folder} are both {what}, but not seeds of one run; they '
                             f'differ in {in_words(changed)}')
        found[run.seed] = run
    return found

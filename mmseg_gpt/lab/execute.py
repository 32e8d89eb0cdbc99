"""Carrying out runs: each in a folder of its own, with a record by which a finished one is known and not done again."""

import argparse
import fcntl
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM
from statistics import mean

from .. import __version__
from ..checks.before import refuse
from ..checks.missing import missing_checkpoint, missing_datasets
from ..engine.resume import POINTER, named_checkpoint
from ..files import replacing
from ..settings import look_up
from ..wording import duration
from .commands import Execute, LiveLine, run_command
from .finished import METRICS, numbers_in
from .provenance import made_with
from .run import TOOLS, Run, config_of, pretrained_sha256, testing, training, typed, what_it_is

RECORD, LOG, LOCK = 'run.json', 'log.txt', 'run.lock'
FINISHED, FAILED, STARTED = 'finished', 'failed', 'started'
STOPPED = {code for signal in (SIGINT, SIGTERM) for code in (128 + signal, -signal)}


class RunFailed(RuntimeError):
    """A command of a run has failed; the message says why."""


def read_record(folder: Path) -> dict:
    """What is known of the run in ``folder``; nothing where there is none.

    Raises:
        SystemExit: its record is damaged.
    """
    path = folder / RECORD
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise SystemExit(f'{path} is damaged ({error}): remove {folder} to run this again') from error


def write_record(folder: Path, record: dict) -> None:
    """Keeps what is known of the run in ``folder``."""
    with replacing(folder / RECORD) as path:
        path.write_text(json.dumps(record, indent=1) + '\n')


def outcomes(runs: Sequence[Run], home: Path) -> dict[str, dict]:
    """The records of those runs that have been begun with these very settings and weights, by name."""
    records = {run: read_record(home / run.name) for run in runs}
    return {run.name: record for run, record in records.items() if record and not difference(record, run)}


def difference(record: dict, run: Run) -> str:
    """In what ``record`` is not of ``run``, which may be the pretrained file if it is here; '' if it is."""
    old, new = record['settings'], what_it_is(run)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f'{key} was {old.get(key)} and is {new.get(key)}'
    known, here = record['pretrained'], pretrained_sha256(run)
    return f'the pretrained file had the SHA-256 {known} and has {here}' if known and here and known != here else ''


def others(runs: Sequence[Run], home: Path) -> dict[Run, str]:
    """Runs whose folder holds one of other settings, with the first of these."""
    found = {}
    for run in runs:
        record = read_record(home / run.name)
        if not record and (home / run.name / POINTER).exists():
            found[run] = f'it has no {RECORD}'
        elif record and (changed := difference(record, run)):
            found[run] = changed
    return found


def prepare(runs: Sequence[Run], home: Path, again: bool = False, overwrite: bool = False) -> None:
    """Stops before anything has started where a dataset or a pretrained file is missing, or runs have other settings.

    Args:
        runs: What is to be run.
        home: The folder of all runs.
        again: As for :func:`run_all`.
        overwrite: Remove runs of other settings, to start them over.

    Raises:
        SystemExit: it says what is missing, and what to do.
    """
    changed = others(runs, home)
    if changed and not overwrite:
        run, what = next(iter(changed.items()))
        raise SystemExit(f'{home} holds {len(changed)} of these runs with other settings; in {run.name}, {what}. '
                         '--overwrite removes those and starts them over, --out DIR writes elsewhere')
    for run in changed:
        clear(run, home)
    records = outcomes(runs, home)
    configs = [config_of(run) for run in runs if not is_done(records.get(run.name, {}), again)]
    datasets = [cfg[loader].dataset for cfg in configs for loader in ('train_dataloader', 'test_dataloader')
                if cfg.get(loader)]
    vits = [look_up(cfg, 'model.backbone.init_cfg') for cfg in configs]
    missing = [said for vit in vits for said in missing_checkpoint(vit)]
    refuse([*missing_datasets(datasets), *dict.fromkeys(missing)], [])


def clear(run: Run, home: Path) -> None:
    """Removes what a run of other settings has left.

    Raises:
        SystemExit: it is going on.
    """
    folder = home / run.name
    with claimed(folder) as lock:
        if not others([run], home):
            return  # another process has removed it
        if lock is None:
            raise SystemExit(f'{folder} cannot be removed, as another process is carrying it out: stop that first')
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def is_done(record: dict, again: bool) -> bool:
    """Whether a run needs nothing more; with ``again``, one that has failed does."""
    return record.get('status') == FINISHED or (record.get('status') == FAILED and not again)


def run_all(runs: Sequence[Run], home: Path, again: bool = False, tools: Path = TOOLS) -> None:
    """Carries out what is not done yet, one after the other; a failed run does not keep the others from being run.

    Several processes may do so at once, as on several GPUs: each run is done by the first that comes to it.

    Args:
        runs: In order.
        home: The folder of all runs.
        again: Give those that failed another chance.
        tools: The folder of train.py and test.py.

    Raises:
        KeyboardInterrupt: a run was stopped, after it had saved what it needs to go on.
    """
    records = outcomes(runs, home)
    left = [run for run in runs if not is_done(records.get(run.name, {}), again)]
    spent = [record['seconds'] for record in records.values() if record['status'] == FINISHED]
    if len(left) < len(runs):
        print(f'{len(runs) - len(left)} of {len(runs)} runs have been done before', flush=True)
    for i, run in enumerate(left):
        time_left = f'   (about {duration(mean(spent) * (len(left) - i))} left in all)' if spent else ''
        print(f'[{len(runs) - len(left) + i + 1}/{len(runs)}] {run.name}{time_left}', flush=True)
        with claimed(home / run.name) as lock:
            if lock is None:
                print('      another process is running it', flush=True)
            elif is_done(now := read_record(home / run.name), again and now == records.get(run.name, {})):
                print('      another process has done it', flush=True)
            else:
                record = carry_out(run, home / run.name, tools, lock)
                spent += [record['seconds']] * (record['status'] == FINISHED)


def work(runs: Sequence[Run], home: Path, args: argparse.Namespace, write: Callable[[], str]) -> None:
    """What a tool does with its runs: list them, or carry them out, and then write and print what they have given.

    Args:
        runs: In order.
        home: The folder of all runs.
        args: With ``dry_run``, ``report_only``, ``retry_failed`` and ``overwrite``.
        write: Writes the results, and returns them to be printed.

    Raises:
        SystemExit: it was stopped, after a run had saved what it needs to go on, or could not begin, or runs failed.
    """
    if args.dry_run:
        print(list_runs(runs, home))
        return
    stopped = ''
    if args.report_only:
        if changed := others(runs, home):
            print(f'{len(changed)} runs in {home} have other settings than now, and are not counted')
    else:
        prepare(runs, home, args.retry_failed, args.overwrite)
        try:
            run_all(runs, home, args.retry_failed)
        except KeyboardInterrupt:
            stopped = '\nstopped; the same command goes on'
    print(f'\n{write()}')
    if stopped:
        raise SystemExit(stopped)
    failed = sum(record['status'] == FAILED for record in outcomes(runs, home).values())
    if failed and not args.report_only:
        raise SystemExit(f'{failed} of {len(runs)} runs failed; --retry-failed gives them another chance')


def list_runs(runs: Sequence[Run], home: Path) -> str:
    """What would be run, with what is known of it."""
    for run in runs[:1]:
        config_of(run)  # refuses settings and options that its tools would refuse
    records, lines = outcomes(runs, home), []
    for run in runs:
        folder, status = home / run.name, records.get(run.name, {}).get('status', 'not begun')
        commands = [training(run, folder), *testing(run, folder, folder / 'CHECKPOINT')]
        lines += [f'{run.name}: {status}', *(f'    $ {typed(command)}' for command in commands)]
    return '\n'.join(lines)


@contextmanager
def claimed(folder: Path) -> Iterator[int | None]:
    """Keeps other processes from the run in ``folder``, until this one and those that it starts have ended.

    Yields:
        The lock, to be handed on to the processes of the run; None if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield lock.fileno()


def carry_out(run: Run, folder: Path, tools: Path, lock: int, start: Execute = run_command,
              origin: dict | None = None) -> dict:
    """Trains and tests, from the beginning or from where it was interrupted, and returns the record.

    Args:
        run: What is done.
        folder: Its own.
        tools: The folder of train.py and test.py.
        lock: Of the folder, see :func:`claimed`.
        start: What runs a command.
        origin: What :func:`made_with` says, if that is known.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    before = read_record(folder)
    record = dict(status=STARTED, version=__version__, command=typed(training(run, folder, tools)),
                  starts=before.get('starts', 0) + 1, seconds=before.get('seconds', 0.), settings=what_it_is(run),
                  pretrained=pretrained_sha256(run), made_with=origin or made_with())
    write_record(folder, record)
    progress, started = LiveLine(), time.time()
    try:
        record.update(status=FINISHED, numbers=train_and_test(run, folder, tools, lock, progress, start))
    except RunFailed as error:
        record.update(status=FAILED, reason=str(error))
    finally:
        record['seconds'] = round(record['seconds'] + time.time() - started, 1)
        write_record(folder, record)
    said = record.get('reason') or ', '.join(f'{name} {value:.2f}' for name, value in record['numbers'].items())
    # A pretraining has no numbers.
    progress.end(f'{said} ({record["status"]} in {duration(record["seconds"])})'.lstrip())
    return record


def train_and_test(run: Run, folder: Path, tools: Path, lock: int, progress: LiveLine,
                   start: Execute) -> dict[str, float]:
    """Runs the commands of a run, and returns what was measured.

    Raises:
        RunFailed: one of them did.
        KeyboardInterrupt: one of them was stopped.
    """
    def execute(command: list[str]) -> None:
        print(f'    $ {typed(command)}', flush=True)
        log = folder / LOG
        before = log.stat().st_size if log.exists() else 0
        status = start(command, log, progress.show, keep=True, pass_fds=(lock, ))
        if status in STOPPED:
            raise KeyboardInterrupt
        if status:
            raise RunFailed(reason(log.read_bytes()[before:].decode(errors='replace'), status))

    execute(training(run, folder, tools))
    checkpoint = trained_checkpoint(run, folder)
    if checkpoint is None:
        raise RunFailed(f'the training left no checkpoint in {folder}')
    for command in testing(run, folder, checkpoint, tools):
        execute(command)
    return read_numbers(folder, run.tta) if run.tested else {}


def trained_checkpoint(run: Run, folder: Path) -> Path | None:
    """What a finished training has left to be tested, if it has: by the authors' protocol its best, else its last."""
    if '--authors-protocol' in run.options:
        best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        return best[-1] if best else None
    return named_checkpoint(folder / POINTER, folder)


def read_numbers(folder: Path, tta: bool) -> dict[str, float]:
    """What tools/test.py has measured: 'accuracy/top1', or 'mIoU' and multi-scale 'tta/mIoU'."""
    return {prefix + name: value for prefix, file in METRICS.items() if tta or not prefix
            for name, value in numbers_in(json.loads((folder / file).read_text())).items()}


def reason(output: str, status: int) -> str:
    """Why a command failed: what a guard of ours said, or the last words of its output."""
    stopped = re.findall(r'^stopped at iteration .*$', output, re.MULTILINE)
    words = [line.strip() for line in output.splitlines() if line.strip()]
    return stopped[-1] if stopped else words[-1] if words and status > 0 else f'exit status {status}'

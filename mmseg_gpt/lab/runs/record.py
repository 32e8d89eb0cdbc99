"""What is known of a run: ``run.json`` in its folder, which one process at a time may write.

It holds the ``status``, the ``settings`` and the ``pretrained`` file that decide the result, with what it was
``made_with`` (at its last start, and at ``earlier`` ones where that was another), the first ``command``, how often it
was begun (``starts``) and how many ``seconds`` that took; and, when it has ended, the ``numbers`` that were measured,
or the ``code`` and the ``reason`` why it failed. The code is that of the event ``stopped`` of
:mod:`mmseg_gpt.events`, or one of

* ``crashed``: a command failed without saying why; the reason is the last line of its output.
* ``killed``: a signal ended a command, as where memory runs out.
* ``incomplete``: a command succeeded, but has not left what it should have.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from ...engine.resume import POINTER
from ...files import replacing
from .claim import FLAG, LOCK, claim
from .run import Runnable

RECORD, LOG, EVENTS = 'run.json', 'log.txt', 'events.jsonl'
FINISHED, FAILED, STARTED = 'finished', 'failed', 'started'
DIVERGED = ('not-finite', 'loss-scaling')


def read_record(folder: Path) -> dict:
    """Returns what is known of the run in ``folder``; an empty dict where there is none.

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


def is_done(record: Mapping, again: bool = False) -> bool:
    """Returns whether a run needs nothing more; with ``again``, one that has failed does."""
    return record.get('status') == FINISHED or (record.get('status') == FAILED and not again)


def diverged(record: Mapping) -> bool:
    """Returns whether a run has failed because its numbers went out of bounds, as with a learning rate too large."""
    if record.get('status') != FAILED:
        return False
    # Before there were codes, all that was known was what the guard had said.
    return record['code'] in DIVERGED if 'code' in record else record['reason'].startswith('stopped at iteration')


def outcomes(runs: Sequence[Runnable], home: Path) -> dict[str, dict]:
    """Returns the records of those runs that have been begun with these very settings and weights, by name."""
    records = {run: read_record(home / run.name) for run in runs}
    return {run.name: record for run, record in records.items() if record and not difference(record, run)}


def difference(record: Mapping, run: Runnable) -> str:
    """Says in what a record is not that of ``run``; returns '' where it is.

    The pretrained file counts where it is known and on this machine.
    """
    identity = run.identity()
    old, new = record['settings'], identity['settings']
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f'{key} was {old.get(key)} and is {new.get(key)}'
    known, here = record['pretrained'], identity['pretrained']
    return f'the pretrained file had the SHA-256 {known} and has {here}' if known and here and known != here else ''


def differing_runs(runs: Sequence[Runnable], home: Path) -> dict[Runnable, str]:
    """Returns the runs whose folder holds a run of other settings, each with the first difference."""
    found = {}
    for run in runs:
        record = read_record(home / run.name)
        if not record and (home / run.name / POINTER).exists():
            found[run] = f'it has no {RECORD}'
        elif record and (what := difference(record, run)):
            found[run] = what
    return found


def clear(folder: Path, is_outdated: Callable[[], object] = lambda: True) -> None:
    """Removes what a run has left.

    Args:
        folder: That of the run.
        is_outdated: Says whether it still is to be removed; another process may have done it, and begun it anew.

    Raises:
        SystemExit: another process is carrying it out.
    """
    with claim(folder) or nullcontext() as lock:
        if not is_outdated():
            return
        if lock is None:
            raise SystemExit(f'{folder} cannot be removed, as another process is carrying it out: stop that first')
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK and not path.name.startswith(FLAG):
                path.unlink(missing_ok=True)

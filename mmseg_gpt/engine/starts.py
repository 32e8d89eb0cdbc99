"""The starts of a run in its work directory: one at a time, each with a name that sorts after those before it."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

from mmengine.dist import is_main_process

from ..checks.together import stop_together

TRAINING_LOCK = 'training.lock'
TIME = '%Y%m%d_%H%M%S'  # MMEngine's name for the logs of a start


@contextmanager
def sole_training(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a work directory, in which two would overwrite each other's files.

    All processes of a run must call this; the first one holds a lock, which the system ends with that process, however
    it ends. Where there are no locks, as on Windows and on some file systems, nothing is refused.

    Raises:
        SystemExit: another training is at work in the folder.
    """
    lock, problem = try_lock(folder / TRAINING_LOCK) if is_main_process() else (None, '')
    try:
        stop_together(problem)
        yield
    finally:
        if lock:
            lock.close()


def try_lock(path: Path) -> tuple[TextIO | None, str]:
    """Returns a locked file, or None; and what is to be said where another process has locked it."""
    try:
        import fcntl
        file = path.open('a+', encoding='utf-8')
    except (ImportError, OSError):
        return None, ''
    try:
        # Not flock: worker processes that load data would hold that too, and outlive a training that is killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        with file:
            file.seek(0)
            return None, (f'another training is at work in {path.parent} ({file.read()}): wait for its end, stop it, '
                          f'or give another --work-dir; should its machine have vanished, remove {path}')
    except OSError:
        file.close()
        return None, ''
    with suppress(OSError):
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}')
        file.flush()
    return file, ''


def name_of_start(now: str, folder: Path) -> str:
    """Returns the name of a start: the local time, or a later one if earlier starts in the folder have that or later.

    Clocks are turned back and folders are moved between time zones, and logs are read in the order of their names.

    Args:
        now: The local time as MMEngine writes it.
        folder: The work directory.
    """
    latest = datetime.min
    for path in folder.glob('????????_??????'):
        with suppress(ValueError):
            latest = max(latest, datetime.strptime(path.name, TIME))
    return now if datetime.strptime(now, TIME) > latest else (latest + timedelta(seconds=1)).strftime(TIME)

"""The claim to a run's folder, so that no two processes carry out one run, on one machine or on several.

It has two parts, because no single one holds everywhere:

* A lock (flock) on ``run.lock`` holds among the processes of one machine. The commands that the owner has started hold
  it too, and the system ends it with the last of them, however that ends. On a network file system it may hold for
  other machines or not, and may outlive a machine that has vanished. Commands whose owner was killed are asked to end
  (:func:`.processes.end_with_parent`, :func:`.processes.end_with_client`), as nobody writes to its flag any more.
* A flag holds among machines: a file of a name of its own, whose owner writes to it every ``BEAT`` seconds. Whoever
  wants the folder raises a flag first and looks for others' then, so that of two at least one sees the other and
  leaves. A flag that has not been written to for ``LEASE`` seconds is that of a machine that has vanished. All times
  are those of the file server, so the machines' clocks do not matter. This needs nothing but that a file that one
  machine has made is listed by another one that makes a file in the same folder, as NFS promises.

An owner that was only cut off for so long finds its flag gone when it comes back, and ends its command at once: for up
to ``BEAT`` seconds, two may write to the folder then.
"""

import errno
import fcntl
import json
import math
import os
import platform
import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from ...engine.starts import TRAINING_LOCK

LOCK, FLAG = 'run.lock', 'run.owner-'
BEAT, LEASE = 10., 120.  # seconds
TRIES, SETTLING = 3, 2.


class Owner(NamedTuple):
    """Who has a claim.

    Attributes:
        machine: Tells this start of the machine from all others.
        host: Its name, for people.
        pid: The process.
        began: Tells this process from later ones of the same number; '' where the system does not say.
    """
    machine: str
    host: str
    pid: int
    began: str = ''


class FolderClaim:
    """A claim to a folder, until it is closed.

    Args:
        lock: The locked file, which commands inherit.
        flag: The file that shows the claim to other machines.
    """

    def __init__(self, lock: TextIO, flag: Path) -> None:
        self.lock, self.flag, self.beaten = lock, flag, time.monotonic()
        self.fileno = lock.fileno

    def __enter__(self) -> 'FolderClaim':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the claim has ended."""
        return self.lock.closed

    def beat(self) -> bool:
        """Shows other machines that the owner lives; it is to be called often.

        Returns:
            Whether the folder is still this process's: another machine may have thought that this one had vanished.
        """
        if time.monotonic() - self.beaten >= BEAT:
            self.beaten = time.monotonic()
            try:
                with self.flag.open('r+') as file:
                    said = file.read()
                    file.seek(0)
                    file.write(said)
            except OSError as error:  # NFS may say ESTALE of a file that is gone; a disk that is full is no loss
                return error.errno not in (errno.ENOENT, errno.ESTALE)
        return True

    def close(self) -> None:
        """Leaves the folder to others."""
        if not self.closed:
            with suppress(OSError):
                self.flag.unlink(missing_ok=True)
            self.lock.close()


def claim(folder: Path) -> FolderClaim | None:
    """Keeps other processes from the run in ``folder``.

    Returns:
        The claim, whose lock is also held by processes that inherit it; None if another process has one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        made, at_once = try_claim(folder)
        if made or not at_once:
            return made
        time.sleep(random.random())
    return None


def try_claim(folder: Path) -> tuple[FolderClaim | None, bool]:
    """Returns a claim, or None; and whether another machine raised its flag just now, so that both may have left."""
    lock = open(folder / LOCK, 'w')  # noqa: SIM115
    locked = try_lock(lock)
    flag = raise_flag(folder)
    made, now = FolderClaim(lock, flag), changed(flag)
    others = [(path, owner) for path, owner in flags(folder) if path != flag]
    living = [path for path, owner in others if is_alive(path, owner, now, locked)]
    if locked is False and others and not living:
        # The lock is that of a machine that has vanished, or of a process here that is about to raise its flag.
        time.sleep(SETTLING)
        living = [path for path, _ in flags(folder) if path not in {flag, *(other for other, _ in others)}]
        living += [flag] * (not flag.exists())
    if living or (locked is False and not others):
        at_once = locked is not False and any(now - changed(path) < 1 for path in living)
        made.close()
        return None, at_once
    for path, _ in others:
        path.unlink(missing_ok=True)
    if others:  # the lock of a training, too, may outlive a machine that has vanished
        (folder / TRAINING_LOCK).unlink(missing_ok=True)
    return made, False


def raise_flag(folder: Path) -> Path:
    """Makes a flag of this process, which is there with all it says or not at all."""
    flag = folder / f'{FLAG}{uuid.uuid4().hex}'
    hidden = flag.with_name(f'.{flag.name}')
    hidden.write_text(json.dumps(this_process()) + '\n')
    return hidden.rename(flag)


def try_lock(file: TextIO) -> bool | None:
    """Locks a file; returns whether that worked, None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_alive(flag: Path, owner: Owner | None, now: float, locked: bool | None) -> bool:
    """Returns whether a flag is that of a process that may still be at work.

    Args:
        flag: The file.
        owner: Who has raised it; None where that is not known.
        now: The file server's time.
        locked: Whether this process has the folder's lock; None where there are no locks.
    """
    if owner and owner.machine == this_machine() and locked is not None:
        return not locked
    return now - changed(flag) < LEASE


def changed(path: Path) -> float:
    """Returns when a file was last written to, in the file server's time; minus infinity where it is gone."""
    with suppress(FileNotFoundError), path.open() as file:  # until it is opened, NFS may answer from memory
        return os.fstat(file.fileno()).st_mtime
    return -math.inf


def flags(folder: Path) -> Iterator[tuple[Path, Owner | None]]:
    """Yields the flags in a folder, with their owners; None for one that is being written."""
    for path in folder.glob(f'{FLAG}*'):
        with suppress(FileNotFoundError):
            try:
                yield path, Owner(*json.loads(path.read_text()))
            except (ValueError, TypeError):
                yield path, None


def current_owner(folder: Path) -> Owner | None:
    """Returns who is at work in a folder, as far as its flags tell."""
    for path, owner in flags(folder):
        if owner and time_of(folder) - changed(path) < LEASE:
            return owner
    return None


def time_of(folder: Path) -> float:
    """Returns the file server's time; this machine's where nothing can be written to the folder."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
    return time.time()


def is_at_work(folder: Path, owner: Owner) -> bool:
    """Returns whether an owner on this machine is alive, and its number is not that of a later process by now."""
    if owner.began:
        return began(owner.pid) == owner.began
    with suppress(FileNotFoundError), (folder / LOCK).open() as lock:
        return try_lock(lock) is False
    return False


def this_process() -> Owner:
    """Returns what this process says of itself."""
    return Owner(this_machine(), platform.node(), os.getpid(), began(os.getpid()))


def began(pid: int) -> str:
    """Returns when a process began, in ticks of this start of the machine; '' where it is gone or that is not known."""
    with suppress(OSError):
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]
    return ''


def this_machine() -> str:
    """Returns what tells this start of this machine from others."""
    boot = Path('/proc/sys/kernel/random/boot_id')
    return boot.read_text().strip() if boot.is_file() else f'{platform.node()}-{uuid.getnode()}'

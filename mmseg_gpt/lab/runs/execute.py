"""Carrying out one run: its commands, one after the other, with a record of what has become of it."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

from ... import __version__
from ...events import read_events
from ...files import seconds_between
from ...wording import gist
from ..provenance import made_with
from .claim import FolderClaim
from .processes import Start
from .record import EVENTS, FAILED, FINISHED, LOG, RECORD, STARTED, read_record, write_record
from .run import RunFailed, Runnable, command_line

STOPPED = {status for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2) for status in (128 + number, -number)}


class Attempt:
    """An attempt at a run, from the beginning or from where it was interrupted.

    Args:
        run: What is done.
        folder: Its own.
        lock: The claim to the folder; it is closed at the end.
        start: Starts a command.
        watch: Is called with each event that the commands report, and with the events ``command`` of their starts.
        gpu: The only one that the commands see; None for all.
    """

    def __init__(self, run: Runnable, folder: Path, lock: FolderClaim, start: Start,
                 watch: Callable[[dict], None], gpu: str | None = None) -> None:
        self.run, self.folder, self.lock, self.start, self.watch, self.gpu = run, folder, lock, start, watch, gpu
        self.commands, self.process, self.began = run.commands(folder), None, time.time()
        before = read_record(folder)
        # An attempt that was killed has not said how long it took: until it last printed or reported something.
        killed = before.get('status') == STARTED
        spent = seconds_between(folder / RECORD, [folder / LOG, folder / EVENTS]) if killed else 0.
        self.record = dict(status=STARTED, version=__version__, command=None, starts=before.get('starts', 0) + 1,
                           seconds=before.get('seconds', 0.) + spent, **run.identity(),
                           made_with=made_with(before.get('made_with')))
        self.record['pretrained'] = self.record['pretrained'] or before.get('pretrained')  # which may be gone by now
        write_record(folder, self.record)
        (folder / EVENTS).unlink(missing_ok=True)
        self.read, self.stopped, self.lost = 0, None, False

    def advance(self) -> bool:
        """Takes note of what the running command has reported, and starts the next one where it has ended.

        Returns:
            Whether the run has ended; then its record says how, unless it was ``lost`` to another machine.

        Raises:
            KeyboardInterrupt: somebody has stopped the command, which has saved what it needs to go on.
        """
        if not self.lock.beat():
            self.lose()
            return True
        status = self.process.poll() if self.process else 0
        self.follow()
        if status is None:
            return False
        try:
            if status:
                raise self.failure(status)
            command = next(self.commands, None)
            if command is not None:
                self.begin(command)
                return False
            self.end(status=FINISHED, numbers=self.run.numbers(self.folder))
        except RunFailed as error:
            self.end(status=FAILED, code=error.code, reason=str(error))
        return True

    def begin(self, command: list[str]) -> None:
        """Starts a command."""
        if self.record['command'] is None:
            self.record['command'] = command_line(command)
            write_record(self.folder, self.record)
        self.watch(dict(event='command', command=command_line(command)))
        log = self.folder / LOG
        self.printed = log.stat().st_size if log.exists() else 0  # by the commands before
        self.process = self.start(command, log, self.folder / EVENTS, self.lock, self.gpu)

    def follow(self) -> None:
        """Reads the events that are new."""
        events, self.read = read_events(self.folder / EVENTS, self.read)
        for event in events:
            if event['event'] == 'stopped':
                self.stopped = event
            self.watch(event)

    def failure(self, status: int) -> RunFailed:
        """Returns why the command has failed: what it has reported, or else the last line of its output.

        Raises:
            KeyboardInterrupt: it has not failed, but was stopped.
        """
        if status in STOPPED or (self.stopped and self.stopped['code'] == 'signal'):
            raise KeyboardInterrupt
        if self.stopped:
            return RunFailed(self.stopped['code'], gist(self.stopped['message']))
        if status < 0:
            return RunFailed('killed', f'ended by signal {-status} ({signal.strsignal(-status)})')
        with (self.folder / LOG).open('rb') as log:
            log.seek(self.printed)
            words = log.read().decode(errors='replace').split('\n')
        return RunFailed('crashed', next((line.strip() for line in reversed(words) if line.strip()),
                                         f'exit status {status}'))

    @property
    def is_running(self) -> bool:
        """Whether a command is running."""
        return self.process is not None and self.process.poll() is None

    def lose(self) -> None:
        """Ends the command at once, as another machine has taken over the folder, and leaves the record to that."""
        self.lost = True
        if self.is_running:
            self.process.kill()
        self.lock.close()

    def end(self, **changes: object) -> None:
        """Keeps in the record what has become of the run, and leaves its folder to other processes."""
        if not self.lock.closed:
            self.record.update(seconds=round(self.record['seconds'] + time.time() - self.began, 1), **changes)
            write_record(self.folder, self.record)
            self.lock.close()

"""Parts of a check, one after another within a time limit, whose results are written after each."""

import json
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...files import replacing
from ..benchmark.cuda import let_go
from .report import report

RESULTS, REPORT = 'gpu_check.json', 'gpu_check.md'


class TimeUp(BaseException):  # so that nothing within a part takes it for an error
    """The time of the whole check is over."""


class Parts:
    """Runs parts of a check, each of which may fail, and writes all results after each part.

    Args:
        out: Folder for ``gpu_check.json`` and ``gpu_check.md``, which is made.
        seconds: Time for all parts together.
        only: Names of parts to run; empty for all.
    """

    def __init__(self, out: str | Path, seconds: float, only: Collection[str] = ()) -> None:
        self.out, self.only, self.begun, self.seconds = Path(out), only, time.monotonic(), seconds
        self.results: dict[str, object] = {}
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Returns the seconds that are left."""
        return self.begun + self.seconds - time.monotonic()

    def run(self, name: str, needed: float, work: Callable[[], object]) -> None:
        """Runs a part if there is time for it, and keeps what it returns, or why there is nothing.

        Args:
            name: The part's.
            needed: Seconds that it usually takes.
            work: Returns numbers and words in plain types.
        """
        if self.only and name not in self.only:
            return
        begun = time.monotonic()
        if self.left < needed:
            found = dict(not_run=f'it needs {needed:.0f} s, and {max(self.left, 0):.0f} s were left')
        else:
            found = dict(not_run='stopped from outside')  # unless it gets to its end
            try:
                with deadline(self.left):
                    found = work()
            except TimeUp:
                found = dict(not_run='its time was over')
            except Exception as error:
                said = ' '.join(str(error).split())[:500]
                found = dict(not_run=f'{type(error).__name__}: {said}', where=traceback.format_exc()[-1500:])
            finally:
                self.keep(name, found, time.monotonic() - begun)
            let_go()
        self.keep(name, found, time.monotonic() - begun)
        print(f'{name}: {time.monotonic() - begun:.0f} s', flush=True)

    def keep(self, name: str, found: object, seconds: float) -> None:
        """Writes all results, with those of one more part."""
        self.results[name] = found
        self.results.setdefault('seconds', {})[name] = round(seconds, 1)
        with replacing(self.out / RESULTS) as file:
            file.write_text(json.dumps(self.results, indent=1, default=str) + '\n')
        with replacing(self.out / REPORT) as file:
            file.write_text(report(json.loads((self.out / RESULTS).read_text())))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TimeUp in the block when its seconds are over; in a thread of its own it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeUp

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)

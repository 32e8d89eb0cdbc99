"""A bounded queue in front of a pool: requests of many threads become batches, and too many are refused."""

import math
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread

from .passes import Prepared
from .pool import AdapterPool
from .task import Image

FIRST_GUESS = 1.  # seconds for a request, before any was measured
FAILED = 'the thread that answers has ended by an error, and nothing is answered any more: start the service again'
MEMORY = 0.8  # share of earlier batches in the mean of the seconds


class TooBusy(RuntimeError):
    """The queue is full.

    Args:
        waiting: Number of waiting requests.
        retry_after: Seconds in which the waiting requests will probably have been answered; also an attribute.
    """

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f'{waiting} requests wait already, and no more may: try again in {math.ceil(retry_after)} s')
        self.retry_after = retry_after


class QueueClosed(RuntimeError):
    """The queue takes no more requests."""


class WaitingRoom:
    """A bounded collection of requests that wait for their turn.

    Args:
        capacity: Most requests that may be read, prepared or waiting.
        batch: Most requests that are taken out together.
        wait: Seconds that the first of them waits for others.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, capacity: int, batch: int, wait: float) -> None:
        if capacity < 1 or batch < 1 or not 0 <= wait < math.inf:
            raise ValueError(f'capacity and batch must be at least 1 and wait at least 0, got {capacity}, {batch} and '
                             f'{wait}')
        self.capacity, self.batch, self.wait = capacity, batch, wait
        self._changed = Condition()
        self._waiting: deque[tuple[float, Prepared, Future]] = deque()
        self._taken = 0  # places of the requests that wait, or are read and prepared
        self._is_closed = self._has_failed = False
        self._seconds: float | None = None  # for a request

    @property
    def waiting(self) -> int:
        """Number of requests that wait, or are read and prepared."""
        return self._taken

    @property
    def is_closed(self) -> bool:
        """Whether no more requests are taken."""
        return self._is_closed

    @property
    def has_failed(self) -> bool:
        """Whether the thread that answers has ended by an error, after which nothing is answered."""
        return self._has_failed

    def check(self) -> None:
        """Refuses, before an image is fetched, what :meth:`submit` would refuse now.

        Raises:
            TooBusy: too many requests wait.
            QueueClosed: the queue is closed, or has failed.
        """
        with self._changed:
            self._refuse_if_closed()
            if self._taken >= self.capacity:
                raise TooBusy(self._taken, (self._seconds or FIRST_GUESS) * self._taken)

    def _refuse_if_closed(self) -> None:
        if self._has_failed:
            raise QueueClosed(FAILED)
        if self._is_closed:
            raise QueueClosed('the queue is closed and takes no more requests')

    def _free(self, places: int) -> None:
        with self._changed:
            self._taken -= places
            self._changed.notify_all()

    def _forget(self, future: Future) -> None:
        """Removes a cancelled request."""
        with self._changed:
            kept = deque(entry for entry in self._waiting if entry[2] is not future)
            found, self._waiting = len(self._waiting) - len(kept), kept
            self._free(found)
        if found:
            future.set_running_or_notify_cancel()  # or who waits for it would not notice

    def _fail(self, batch: list[tuple[float, Prepared, Future]]) -> None:
        """Closes the queue, and fails the requests of a batch and those that wait, as nobody would answer them."""
        with self._changed:
            self._is_closed = self._has_failed = True
            left, self._waiting = [*batch, *self._waiting], deque()
            self._free(len(left) - len(batch))
        for _, _, future in left:
            with suppress(InvalidStateError):  # it is answered or cancelled
                future.set_exception(QueueClosed(FAILED))

    def _next(self) -> list[tuple[float, Prepared, Future]] | None:
        """Waits for a batch; returns None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            left = self._waiting[0][0] + self.wait - time.monotonic()
            self._changed.wait_for(lambda: len(self._waiting) >= self.batch or self._is_closed, max(0., left))
            batch = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
            self._free(len(batch))
            return batch


class RequestQueue(WaitingRoom):
    """Queue of requests to the tasks of a pool, which one thread answers in batches.

    An image is read and prepared in the thread that asks, so that a file that cannot be used fails at once and alone.
    If a batch fails, its requests are tried one by one. A future that is cancelled before its turn frees its place::

        with RequestQueue(pool) as queue:
            futures = [queue.submit('birds', image) for image in images]
            samples = [future.result() for future in futures]

    Args:
        pool: The pool.
        capacity: Most requests that may be read, prepared or waiting.
        batch: Most requests that are computed together.
        wait: Seconds that the first request of a batch waits for others.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, pool: AdapterPool, capacity: int = 64, batch: int = 8, wait: float = 0.01) -> None:
        super().__init__(capacity, batch, wait)
        self.pool = pool
        self._thread = Thread(target=self._work, name='requests', daemon=True)
        self._thread.start()

    def __enter__(self) -> 'RequestQueue':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, name: str, image: Image, probabilities: bool | Path | None = False, confidence: bool = False,
               small: bool = False) -> Future:
        """Reads and prepares an image, and lets it wait for its turn.

        Args:
            name: Name of the task.
            image: As for :meth:`AdapterPool.predict`.
            probabilities: As for :meth:`AdapterPool.prepare`.
            confidence: As for :meth:`AdapterPool.predict`.
            small: As for :meth:`AdapterPool.predict`.

        Returns:
            Future: It gets the answer, or what the model raised.

        Raises:
            TooBusy: too many requests wait.
            QueueClosed: the queue is closed, or has failed.
            ValueError: there is no such task, or an array is not an image.
            SampleError: the image cannot be read.
        """
        with self._changed:
            self.check()
            self._taken += 1
        future: Future = Future()
        try:
            prepared = self.pool.prepare(name, image, probabilities, confidence, small)
            with self._changed:
                self._refuse_if_closed()
                self._waiting.append((time.monotonic(), prepared, future))
                self._changed.notify_all()
        except BaseException:
            self._free(1)
            raise
        future.add_done_callback(self._forget)
        return future

    def close(self, drain: bool = True) -> None:
        """Closes the queue to new requests, and returns when none is waiting.

        Args:
            drain: Whether waiting requests are answered; otherwise they are cancelled.
        """
        with self._changed:
            self._is_closed = True
            left = [] if drain else [future for _, _, future in self._waiting]
            self._changed.notify_all()
        for future in left:
            future.cancel()
        self._thread.join()

    def _work(self) -> None:
        """Answers batches until the queue is closed and empty."""
        batch = None
        try:
            while (batch := self._next()) is not None:
                self._answer([(prepared, future) for _, prepared, future in batch
                              if future.set_running_or_notify_cancel()])
                batch = None  # or images and answers would stay in memory until the next request
        except BaseException:
            self._fail(batch or [])
            raise

    def _answer(self, batch: list[tuple[Prepared, Future]]) -> None:
        start = time.monotonic()
        try:
            answers = self.pool.answer([prepared for prepared, _ in batch])
            answered = list(zip(batch, answers, strict=True))
        except BaseException as error:  # SystemExit too, which would end this thread and not the program
            if len(batch) == 1:
                batch[0][1].set_exception(error if isinstance(error, Exception) else RuntimeError(
                    f'the model raised {type(error).__name__}: {error}'))
            for entry in batch if len(batch) > 1 else ():
                self._answer([entry])
            return
        if batch:
            seconds = (time.monotonic() - start) / len(batch)
            self._seconds = MEMORY * (self._seconds or seconds) + (1 - MEMORY) * seconds
        for (_, future), answer in answered:
            future.set_result(answer)

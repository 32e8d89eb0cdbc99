"""Work that is spread over processes of this machine."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2


@contextmanager
def in_processes(function: Callable, arguments: Iterable, workers: int, chunk: int = 8) -> Iterator[Iterator[Any]]:
    """Computes a function in several processes, none of which is left after the context, nor after an interrupt in it.

    Args:
        function: What is computed; it can be pickled.
        arguments: Its arguments.
        workers: Number of processes.
        chunk: How many arguments a process gets at once.

    Yields:
        The results, in the order of their arguments, as they come.
    """
    pool = ProcessPoolExecutor(workers, initializer=start_worker)
    try:
        with interrupts_held():  # interrupted while it starts, a pool would never end
            results = pool.map(function, arguments, chunksize=chunk)
        yield results
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    """Leaves Ctrl-C to the main process and the other CPUs to the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets a Ctrl-C wait until the context ends. Only in the main thread, as only that gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple] = []
    before = signal.signal(signal.SIGINT, lambda *at: came.append(at))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if came and callable(before):
            before(*came[-1])

"""Processes that compute side by side end with the work, and with an interrupt too."""

import multiprocessing
import os
import signal
from concurrent.futures import process

import pytest

from mmseg_gpt.processes import in_processes


def test_results_come_in_order_and_no_process_is_left():
    before = {child.pid for child in multiprocessing.active_children()}  # of other tests
    with in_processes(abs, range(-9, 0), 2, chunk=2) as results:
        assert list(results) == list(range(9, 0, -1))
    assert {child.pid for child in multiprocessing.active_children()} <= before


def test_an_interrupt_while_processes_start_leaves_none_behind(monkeypatch):
    manager = process._ExecutorManagerThread

    def interrupted(pool: process.ProcessPoolExecutor) -> process._ExecutorManagerThread:
        """Makes the thread that looks after the processes, which have begun."""
        pids.extend(pool._processes)
        os.kill(os.getpid(), signal.SIGINT)
        return manager(pool)

    pids: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(process, '_ExecutorManagerThread', interrupted)
        with pytest.raises(KeyboardInterrupt), in_processes(abs, range(1000), 2) as results:
            list(results)
    assert pids and not {child.pid for child in multiprocessing.active_children()} & {*pids}
    with in_processes(abs, range(5), 2) as results:  # the next one is as any other
        assert list(results) == list(range(5))

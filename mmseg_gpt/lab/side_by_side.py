"""Carrying out short runs, several at once, without importing torch and OpenMMLab's packages for every command.

A server process imports them once, and each run is a fork of it, in which its commands are forks again. Linux and
macOS only, as are the locks of :mod:`.execute`.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..wording import duration
from .commands import run_forked
from .execute import FAILED, FINISHED, carry_out, claimed, is_done, outcomes, read_record, write_record
from .provenance import made_with
from .run import TOOLS, Run

# All that training and testing import; what is missing here is imported by every command again.
IMPORTED = ('mmseg_gpt.engine', 'mmseg_gpt.segmentation', 'mmseg_gpt.classification.datasets', 'mmseg.apis',
            'mmpretrain.models', 'mmpretrain.engine', 'mmpretrain.evaluation', 'mmpretrain.visualization',
            'matplotlib.figure', 'matplotlib.backends.backend_agg', 'torch.profiler')


def run_side_by_side(runs: Sequence[Run], home: Path, workers: int, title: str, again: bool = False) -> None:
    """Carries out what is not done yet; a failed run does not keep the others from being run.

    Args:
        runs: In order.
        home: The folder of all runs.
        workers: How many at once.
        title: What they are, for the lines that show how far they are.
        again: Give those that failed another chance.

    Raises:
        KeyboardInterrupt: it was stopped; so were the runs, after they had saved what they need to go on.
    """
    known = outcomes(runs, home)
    left = [run for run in runs if not is_done(known.get(run.name, {}), again)]
    print(f'{title}: {len(runs)} runs' + (f', {len(runs) - len(left)} of them done before' * (len(left) < len(runs))),
          flush=True)
    if not left:
        return
    context = get_context('forkserver')
    context.set_forkserver_preload(list(IMPORTED))
    active: dict[BaseProcess, Run] = {}
    begun, done = time.time(), 0
    waiting = iter(left)
    try:
        while True:
            while len(active) < workers and (run := next(waiting, None)):
                process = context.Process(target=carry_out_alone, args=(run, home, again, made_with()))
                process.start()
                active[process] = run
            if not active:
                return
            ready = wait([process.sentinel for process in active])
            for process in [process for process in active if process.sentinel in ready]:
                run = active.pop(process)
                process.join()
                note_crash(home / run.name, process.exitcode)
                done += 1
                rest = (time.time() - begun) / done * (len(left) - done)
                print(f'[{len(runs) - len(left) + done}/{len(runs)}] {run.name}: '
                      f'{said_of(read_record(home / run.name))}   (about {duration(rest)} left of {title})', flush=True)
    except KeyboardInterrupt:
        for process in active:
            process.terminate()
        for process in active:
            process.join()
        raise


def carry_out_alone(run: Run, home: Path, again: bool, origin: dict) -> None:
    """Carries out one run, in a process of its own that prints nothing."""
    # A session of its own: Ctrl-C in the terminal reaches the process that started this, which passes it on.
    os.setsid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere), claimed(home / run.name) as lock:
        if lock is not None and not is_done(read_record(home / run.name), again):
            try:
                carry_out(run, home / run.name, TOOLS, lock, run_forked, origin)
            except KeyboardInterrupt:  # its record says how far it is
                sys.exit(128 + signal.SIGTERM)


def note_crash(folder: Path, status: int) -> None:
    """Keeps in the record of a run that its process has ended otherwise than it should, as one that is killed does."""
    record = read_record(folder)
    if status and record.get('status') not in (FINISHED, FAILED):
        write_record(folder, dict(record, status=FAILED, reason=f'its process ended with status {status}'))


def said_of(record: dict) -> str:
    """What came of a run, in a few words."""
    if record.get('status') == FINISHED:
        return ', '.join([*(f'{name} {value:.2f}' for name, value in record['numbers'].items()),
                          f'{record["seconds"]:.0f} s'])
    return f'failed: {record["reason"]}' if record.get('status') == FAILED else 'another process is running it'

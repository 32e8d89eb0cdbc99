"""Carries out runs, one or several at once, here or on a cluster; records each, and skips what is done.

Linux and macOS only, as are the locks of :mod:`.claim`.
"""

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .claim import claim
from .execute import Attempt
from .jobs import Cluster, run_jobs
from .processes import Start, gpus_of_this_process, start_fork, start_process, start_server
from .progress import RunsDisplay
from .record import FINISHED, is_done, outcomes, read_record
from .run import Runnable

PAUSE = 0.1  # seconds between looks at the commands


def run_all(runs: Sequence[Runnable], home: Path, *, title: str = 'runs', jobs: int = 1, again: bool = False,
            forked: bool = False, in_order: bool = False, cluster: Cluster | None = None,
            start: Start | None = None) -> None:
    """Carries out what is not done yet; a failed run does not keep the others from being run.

    Several processes may do so at once, as on several GPUs: each run is done by the first that comes to it.

    Args:
        runs: What to do, in the order to start.
        home: The folder of all runs.
        title: What they are, for people.
        jobs: Runs at a time, spread over the GPUs that this process sees.
        again: Give those that failed another chance.
        forked: Let the commands be forks of a process that has imported what they need, for runs so short that
            importing takes most of their time.
        in_order: Each run needs what those before it leave: begin none after one that has not finished.
        cluster: Where the runs are carried out, if not here: each as a job, all of which are waited for.
        start: Starts a command in another way.

    Raises:
        KeyboardInterrupt: it was stopped; so were the runs, after they had saved themselves. Those on a cluster go on.
    """
    if cluster:
        run_jobs(runs, home, cluster, title=title, again=again)
        return
    known = outcomes(runs, home)
    left = deque(run for run in runs if not is_done(known.get(run.name, {}), again))
    print(f'{title}: {len(runs) - len(left)} of {len(runs)} done before', flush=True)
    start = start or (start_fork if forked and left and imports_work(jobs) else partial(start_process, jobs))
    active: list[Attempt] = []
    with RunsDisplay(runs, list(left), known, jobs) as progress:
        try:
            while left or active:
                ended = [attempt for attempt in active if attempt.advance()]
                for attempt in ended:
                    active.remove(attempt)
                    progress.end(attempt.run, attempt.record, attempt.lost)
                    if in_order and attempt.record['status'] != FINISHED:
                        left.clear()
                while left and len(active) < jobs:
                    run = left.popleft()
                    progress.begin(run)
                    lock = claim(home / run.name)
                    if lock is None:
                        progress.leave(run, 'another process is running it')
                        if in_order:
                            left.clear()
                    elif is_done(now := read_record(home / run.name), again and now == known.get(run.name, {})):
                        progress.leave(run, 'another process has done it')
                        lock.close()
                    else:
                        active.append(Attempt(run, home / run.name, lock, start, partial(progress.show, run),
                                              least_used_gpu(active) if jobs > 1 else None))
                if active and not ended:
                    time.sleep(PAUSE)
        except BaseException:
            stop(active)
            raise


def least_used_gpu(attempts: Sequence[Attempt]) -> str | None:
    """Returns the GPU that the fewest attempts have; None where there are not several."""
    gpus = gpus_of_this_process()
    return min(gpus, key=[attempt.gpu for attempt in attempts].count) if len(gpus) > 1 else None


def imports_work(jobs: int) -> bool:
    """Returns whether all commands can be forks of one process; says so where they cannot."""
    works = start_server(jobs)
    if not works:
        print('importing for all commands at once failed, as printed above: each imports for itself', flush=True)
    return works


def stop(attempts: Sequence[Attempt]) -> None:
    """Asks the running commands to end, waits for them, and keeps in the records how far they are."""
    running = [attempt for attempt in attempts if attempt.is_running]
    for attempt in running:
        attempt.process.terminate()
    while any(attempt.is_running for attempt in running):
        try:
            time.sleep(PAUSE)
            for attempt in running:
                if not attempt.lock.beat():
                    attempt.lose()
        except KeyboardInterrupt:  # second Ctrl-C: stop at once, without saving
            for attempt in running:
                attempt.process.terminate()
    for attempt in attempts:
        attempt.end()

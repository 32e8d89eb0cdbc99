"""Watching runs from anywhere on the folder that holds them, whoever carries them out, and ending them."""

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ...events import read_events
from ...wording import duration
from .claim import current_owner, is_at_work, this_machine
from .jobs import JOBS, by_cluster, living_jobs
from .progress import in_words
from .record import EVENTS, FAILED, FINISHED, outcomes
from .run import Runnable

EVERY = 5  # seconds between looks
TAIL = 10000  # bytes of events that are read
QUEUED, RUNNING, INTERRUPTED, ABSENT = 'queued', 'running', 'interrupted', 'not begun'
STATES = (FINISHED, FAILED, RUNNING, QUEUED, INTERRUPTED, ABSENT)


class RunState(NamedTuple):
    """What is seen of a run.

    Attributes:
        run: Which one.
        state: One of ``STATES``.
        said: How far it is, or its last words.
        seconds: How long it took; 0 while it has not finished.
    """
    run: Runnable
    state: str
    said: str = ''
    seconds: float = 0.


def look(runs: Sequence[Runnable], home: Path) -> list[RunState]:
    """Returns what can be seen of runs now."""
    # Records are read after that: a run that ends in the meantime has left its own by then.
    living = living_jobs(runs, home)
    owned = {run.name for run in runs if current_owner(home / run.name)}
    records = outcomes(runs, home)
    jobs = {name: job for _, names in by_cluster(runs, home) for job, name in names.items()}
    seen = []
    for run in runs:
        record = records.get(run.name, {})
        if record.get('status') == FINISHED:
            seen.append(RunState(run, FINISHED, seconds=record['seconds']))
        elif run.name in owned:
            seen.append(RunState(run, RUNNING, progress(home / run.name / EVENTS)))
        elif run.name in living:
            seen.append(RunState(run, QUEUED, '' if living[run.name] else 'or not: its cluster does not answer here'))
        elif record.get('status') == FAILED:
            seen.append(RunState(run, FAILED, f'{record.get("code", "")}: {record["reason"]}'.removeprefix(': ')))
        elif record or run.name in jobs:
            said = last_words(home / JOBS, jobs[run.name]) if run.name in jobs else ''
            seen.append(RunState(run, INTERRUPTED, said or 'nobody is running it any more'))
        else:
            seen.append(RunState(run, ABSENT))
    return seen


def progress(path: Path) -> str:
    """Says how far the last events tell that a run is."""
    start = max(0, path.stat().st_size - TAIL) if path.exists() else 0
    events = [event for event in read_events(path, start)[0] if event['event'] == 'progress']
    return in_words(events[-1]) if events else 'starting'


def last_words(folder: Path, job: str) -> str:
    """Returns the last line that a job has left in its log of errors; '' where there is none."""
    logs = sorted(folder.glob(f'{job}_*.err'))
    lines = logs[-1].read_text(errors='replace').splitlines() if logs else []
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def summary(seen: Sequence[RunState], title: str) -> str:
    """Returns how many runs are in which state, and about how long all that are queued or running will take."""
    counts = Counter(each.state for each in seen)
    known = ', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])
    spent, left = [each.seconds for each in seen if each.seconds], counts[QUEUED] + counts[RUNNING]
    if spent and counts[RUNNING]:
        known += f'   (about {duration(mean(spent) * left / counts[RUNNING])} left in all)'
    return f'{title}: {known}'


def lines_of(seen: Sequence[RunState], states: Sequence[str]) -> list[str]:
    """Returns a line for each run in one of some states."""
    return [f'  {each.state:11} {each.run.name}: {each.said}'.rstrip(': ') for state in states for each in seen
            if each.state == state]


def watch(runs: Sequence[Runnable], home: Path, title: str = 'runs') -> None:
    """Shows how far runs are until none is queued or running: on a terminal all that run, elsewhere what changes.

    Raises:
        KeyboardInterrupt: nobody looks any longer, which changes nothing for the runs.
    """
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    before: set[str] = set()
    with Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else nullcontext() as live:
        while True:
            seen = look(runs, home)
            stay = [summary(seen, title), *lines_of(seen, (FAILED, INTERRUPTED))]
            if live:
                shown = [*stay, *lines_of(seen, (RUNNING, ))]
                live.update(Text('\n'.join(shown[:console.height - 1])), refresh=True)
            elif news := [line for line in stay if line not in before]:
                console.print('\n'.join(news))
                before = {*stay}
            if not any(each.state in (QUEUED, RUNNING) for each in seen):
                break
            time.sleep(EVERY)
    if console.is_terminal:
        console.print('\n'.join(stay))


def cancel(runs: Sequence[Runnable], home: Path) -> None:
    """Ends the jobs of runs, and the processes of this machine that carry them out, after these have saved the runs.

    Raises:
        SystemExit: a run is carried out by a process of another machine.
    """
    living: set[str] = set()
    for cluster, jobs in by_cluster(runs, home):
        known = cluster.poll([*jobs])
        ids = [job for job in jobs if known is None or job in known]
        living.update(jobs[job] for job in ids)
        if ids:
            cluster.cancel(ids)
        print(f'{len(ids)} jobs of {cluster.name} are ended', flush=True)
    owners = {owner: home / run.name for run in runs
              if run.name not in living and (owner := current_owner(home / run.name))}
    if not living and not owners:
        print('nothing to end: no run is queued or running', flush=True)
    for owner, folder in owners.items():
        if owner.machine == this_machine() and is_at_work(folder, owner):
            with suppress(ProcessLookupError):
                os.kill(owner.pid, signal.SIGTERM)
            print(f'process {owner.pid} is ended', flush=True)
        elif owner.machine == this_machine():
            print(f'process {owner.pid} is not here any more', flush=True)
    if away := [f'process {owner.pid} on {owner.host}' for owner in owners if owner.machine != this_machine()]:
        raise SystemExit(f'to be ended where it is: {", ".join(away)}')

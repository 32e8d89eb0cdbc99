"""Runs as jobs of a cluster: each is submitted once, does all of its run wherever it starts, and leaves a record.

A cluster has to do three things only, see :class:`Cluster`. Which of them has a run's jobs is in ``job.json`` in the
run's folder, so that any process that sees the folder can look after them. There are several jobs where one was
submitted while the cluster did not say whether the one before was alive.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ...files import replacing
from .claim import BEAT, LEASE, current_owner
from .processes import start_gently
from .record import is_done, outcomes, read_record
from .run import Runnable

JOB, JOBS = 'job.json', 'jobs'  # in the folder of a run; the folder of all jobs' logs, beside the runs


class Job(NamedTuple):
    """What a cluster calls to carry out a run, or to go on with it; several times where it is interrupted.

    Attributes:
        run: What is done.
        home: The folder of all runs.
        place: The folder from which that and the files of configs are named.
        again: Give the run another chance if it has failed.
    """
    run: Runnable
    home: Path
    place: Path
    again: bool

    def __call__(self) -> None:
        """Carries out the run.

        Raises:
            KeyboardInterrupt: it was stopped, after the run had saved what it needs to go on.
            RuntimeError: another process has the run.
        """
        from .loop import run_all  # which imports this module
        os.chdir(self.place)
        deadline = time.monotonic() + 2 * LEASE  # by then a machine that has vanished counts as such
        while True:
            run_all([self.run], self.home, title=self.run.name, again=self.again, start=start_gently)
            if is_done(read_record(self.home / self.run.name)):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f'another process is carrying out {self.home / self.run.name}')
            time.sleep(BEAT / 2)


class Cluster(Protocol):
    """What carries out jobs.

    Attributes:
        name: Which kind, as for ``--on``.
        address: Where it is; '' if there is only one.
    """
    name: str
    address: str

    def check(self) -> None:
        """Checks before anything else, in seconds, what can be known without submitting.

        Raises:
            SystemExit: settings are wrong or incomplete, or there is no cluster.
        """

    def submit(self, jobs: Sequence[Job], folder: Path, title: str) -> Iterable[str]:
        """Queues jobs, and gives what each is called as soon as it is queued. Their logs go into ``folder``.

        Raises:
            SystemExit: they are refused.
        """

    def poll(self, ids: Sequence[str]) -> set[str] | None:
        """Returns which jobs are still queued or running; None if that cannot be known here and now."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs, which save their runs first."""


def make_cluster(name: str, settings: Mapping[str, str]) -> Cluster | None:
    """Returns a cluster by its name; None for 'local'.

    Args:
        name: 'local', 'slurm' or 'ray'.
        settings: Its own, by key.

    Raises:
        SystemExit: a setting is wrong, or a package is missing.
    """
    if name == 'slurm':
        from .slurm import Slurm
        return Slurm(settings)
    if name == 'ray':
        from .on_ray import Ray
        return Ray(settings)
    return None


def run_jobs(runs: Sequence[Runnable], home: Path, cluster: Cluster, *, title: str, again: bool) -> None:
    """Submits what is neither done nor has a job or a process yet, and waits until all are done or given up.

    Args:
        runs: What to do.
        home: The folder of all runs.
        cluster: Where.
        title: What the runs are, for people.
        again: Give those that failed another chance.

    Raises:
        KeyboardInterrupt: nobody waits any longer; the jobs go on.
    """
    from .watch import watch  # which imports this module
    known = outcomes(runs, home)
    left = [run for run in runs if not is_done(known.get(run.name, {}), again)]
    print(f'{title}: {len(runs) - len(left)} of {len(runs)} done before', flush=True)
    living = living_jobs(left, home)
    # Should a cluster not answer, a second job does no harm: it finds that the run has an owner, or is done.
    new = [run for run in left if not living.get(run.name) and not current_owner(home / run.name)]
    if new:
        submit([Job(run, home, Path.cwd(), again) for run in new], cluster, title, living)
    print(f'{len(new)} jobs submitted to {cluster.name}, {len(left) - len(new)} are queued or running; Ctrl-C leaves '
          'them, --watch shows them and --cancel ends them', flush=True)
    if left:
        watch(runs, home, title)


def submit(jobs: Sequence[Job], cluster: Cluster, title: str, unknown: Container[str] = ()) -> None:
    """Submits jobs, and keeps in the folder of each run which jobs it has.

    Args:
        jobs: One for each run.
        cluster: Where.
        title: What the runs are, for people.
        unknown: Names of runs whose earlier jobs may be alive.

    Raises:
        SystemExit: the cluster refuses a job; those before it are queued and known.
    """
    folder = (jobs[0].home / JOBS).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for job, name in zip(jobs, cluster.submit(jobs, folder, title), strict=True):
        path = job.home / job.run.name / JOB
        path.parent.mkdir(parents=True, exist_ok=True)
        earlier = jobs_of(path) if job.run.name in unknown else []
        with replacing(path) as unfinished:
            said = [*earlier, dict(on=cluster.name, address=cluster.address, job=name)]
            unfinished.write_text(json.dumps(said) + '\n')


def jobs_of(path: Path) -> list[dict[str, str]]:
    """Returns the jobs of a run, the latest one last. Files of earlier versions hold a single one."""
    known = json.loads(path.read_text()) if path.is_file() else []
    return [known] if isinstance(known, dict) else known


def living_jobs(runs: Iterable[Runnable], home: Path) -> dict[str, bool]:
    """Returns the runs with a job that is still queued or running, by name; False where nobody here knows."""
    found: dict[str, bool] = {}
    for cluster, jobs in by_cluster(runs, home):
        living = cluster.poll([*jobs])
        for job, name in jobs.items():
            if living is None or job in living:
                found[name] = found.get(name, False) or living is not None
    return found


def by_cluster(runs: Iterable[Runnable], home: Path) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """Yields clusters that have or had jobs of the runs, each with the names of runs by their jobs."""
    jobs: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for run in runs:
        for known in jobs_of(home / run.name / JOB):
            jobs[known['on'], known['address']][known['job']] = run.name
    for (name, address), names in jobs.items():
        yield make_cluster(name, dict(address=address) if address else {}), names

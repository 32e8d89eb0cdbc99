"""A Ray cluster: a queue in an actor of its own, which lives on when nobody waits for the runs."""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType

from .jobs import Job

MISSING = "--on ray needs Ray: pip install 'mmseg-gpt[ray]'"
NAME = 'mmseg_gpt'  # of the actor, and of its namespace


class Queue:
    """The jobs of all who use the cluster; an actor, so that they belong to no process that may end."""

    def __init__(self) -> None:
        self.tasks: dict[str, object] = {}

    def submit(self, jobs: Mapping[str, Job], options: Mapping) -> None:
        """Hands jobs to Ray, which starts each when there is room, and again if its machine vanishes."""
        import ray
        task = ray.remote(call).options(max_retries=-1, **options)
        self.tasks.update({name: task.remote(job) for name, job in jobs.items()})

    def living(self) -> set[str]:
        """Returns which jobs are queued or running."""
        import ray
        tasks = [*self.tasks.values()]
        done = set(ray.wait(tasks, num_returns=len(tasks), timeout=0)[0]) if tasks else set()
        self.tasks = {name: task for name, task in self.tasks.items() if task not in done}
        return {*self.tasks}

    def cancel(self, names: Sequence[str]) -> None:
        """Ends jobs, by a KeyboardInterrupt in those that run."""
        import ray
        for name in names:
            if name in self.tasks:
                ray.cancel(self.tasks[name])


def call(job: Job) -> None:
    """Carries out a job."""
    job()


class Ray:
    """A Ray cluster; a :class:`~.jobs.Cluster`.

    Args:
        settings: ``address``, if it is not that of this machine's cluster; ``gpus``, which may be a fraction, and
            ``cpus`` for each run.

    Raises:
        SystemExit: there is another setting, or a number is none.
    """
    name = 'ray'

    def __init__(self, settings: Mapping[str, str]) -> None:
        if unknown := settings.keys() - {'address', 'gpus', 'cpus'}:
            raise SystemExit(f'--ray {sorted(unknown)[0]}: there are address, gpus and cpus')
        self.address = settings.get('address', 'auto')
        try:
            self.options = dict(num_gpus=float(settings.get('gpus', 0)), num_cpus=float(settings.get('cpus', 1)))
        except ValueError as error:
            raise SystemExit(f'--ray: {error}') from error

    @cached_property
    def ray(self) -> ModuleType:
        """The package, connected to the cluster.

        Raises:
            SystemExit: it is missing, or there is no cluster.
        """
        try:
            import ray
        except ImportError as error:
            raise SystemExit(MISSING) from error
        if not ray.is_initialized():
            self.check()
            paths = {'env_vars': {'PYTHONPATH': os.environ.get('PYTHONPATH', '')}}
            try:
                ray.init(self.address, namespace=NAME, runtime_env=paths, log_to_driver=False, logging_level='ERROR')
            except (ConnectionError, RuntimeError) as error:
                raise SystemExit(f'--on ray: there is no cluster at {self.address}: {error}') from error
        return ray

    def check(self) -> None:
        """Checks that something answers at an address with a port, as Ray itself waits for minutes.

        Raises:
            SystemExit: nothing does.
        """
        host, _, port = self.address.rpartition('://')[2].rpartition(':')
        if not host or not port.isdecimal():  # as in 'auto'
            return
        try:
            socket.create_connection((host.strip('[]'), int(port)), timeout=2).close()
        except (OSError, OverflowError) as error:
            raise SystemExit(f'--on ray: there is no cluster at {self.address}: {error}') from error

    @cached_property
    def queue(self) -> object:
        """The actor, which the first who needs it starts."""
        return self.ray.remote(Queue).options(name=NAME, lifetime='detached', get_if_exists=True, num_cpus=0).remote()

    def submit(self, jobs: Sequence[Job], folder: Path, title: str) -> list[str]:
        """Queues jobs; see :class:`~.jobs.Cluster`."""
        names = [uuid.uuid4().hex for _ in jobs]
        self.ray.get(self.queue.submit.remote(dict(zip(names, jobs)), self.options))
        return names

    def poll(self, ids: Sequence[str]) -> set[str] | None:
        """Returns which jobs are still queued or running; None where the cluster does not answer."""
        try:
            return set(ids) & self.ray.get(self.queue.living.remote(), timeout=60)
        except (SystemExit, Exception):  # Ray's own errors are of a package that may be missing
            return None

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs, which save their runs first."""
        self.ray.get(self.queue.cancel.remote(ids))

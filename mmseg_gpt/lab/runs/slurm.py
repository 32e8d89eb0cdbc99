"""Slurm, by submitit: a job array of all runs, each requeued when it runs out of time or is preempted."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .jobs import Job

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

MISSING = "--on slurm needs submitit: pip install 'mmseg-gpt[cluster]'"
NO_TIME = ('--on slurm needs --slurm time=TIME, in minutes or as 1-12:00:00, after which a run is requeued and goes '
           'on')
CHECKED = ('gpus_per_node', 'cpus_per_task', 'gres', 'mem')  # by sbatch, of those that submitit knows
NAMES = dict(gpus='gpus_per_node', cpus='cpus_per_task', parallel='array_parallelism')  # shorter ones
LARGEST = 1000  # jobs in an array; one less than Slurm allows by default
SAVING = 90  # seconds that a run is given to save itself before its time is up
# What kills a job's processes and not the job, as where memory runs out, is given three more chances.
AFTER_A_KILL = ['status=$?', '[ $status = 137 ] && [ ${SLURM_RESTART_COUNT:-0} -lt 3 ] && '
                'scontrol requeue $SLURM_JOB_ID', 'exit $status']


class Slurm:
    """A cluster that Slurm manages; a :class:`~.jobs.Cluster`.

    Args:
        settings: Options of sbatch without their dashes: ``time`` (needed to submit), ``partition``, ``account``;
            ``gpus``, ``cpus``, and how many run at once, ``parallel``.

    Raises:
        SystemExit: the time is none, or too short to get anywhere.
    """
    name, address = 'slurm', ''

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = {NAMES.get(key, key).replace('-', '_'): int(value) if value.isdecimal() else value
                         for key, value in settings.items()}
        if 'time' in self.settings:
            self.settings['time'] = minutes(str(self.settings['time']))
            if self.settings['time'] * 60 < self.settings.get('signal_delay_s', SAVING) + 60:
                raise SystemExit(f'--slurm time={settings["time"]}: a run is asked to save itself '
                                 f'{self.settings.get("signal_delay_s", SAVING)} seconds before its time is up '
                                 '(signal_delay_s=SECONDS), and needs more than a minute before that')

    def check(self) -> None:
        """Checks that submitit and sbatch are here, that a time is given, and that sbatch knows the other settings.

        Raises:
            SystemExit: one of these fails.
        """
        try:
            from submitit import SlurmExecutor
        except ImportError as error:
            raise SystemExit(MISSING) from error
        if 'time' not in self.settings:
            raise SystemExit(NO_TIME)
        theirs = [f'--{key.replace("_", "-")}={value}' for key, value in self.settings.items()
                  if key in CHECKED or key not in SlurmExecutor._valid_parameters()]
        try:  # with --help behind them, options are read and nothing is submitted
            said = subprocess.run(['sbatch', *theirs, '--help'], capture_output=True, text=True, check=False,
                                  timeout=60)
        except FileNotFoundError as error:
            raise SystemExit('--on slurm: sbatch is not on this machine; start this where jobs are '
                             'submitted') from error
        except subprocess.TimeoutExpired:
            return
        if 'configuration source' in said.stderr:
            raise SystemExit('--on slurm: sbatch finds no cluster from this machine, neither a slurm.conf nor a '
                             'controller; start this where jobs are submitted')
        if said.returncode:
            raise SystemExit(f'--on slurm: {"".join(said.stderr.splitlines()[:1])}')

    def submit(self, jobs: Sequence[Job], folder: Path, title: str) -> Iterator[str]:
        """Queues jobs as arrays, and yields their numbers as soon as they have some; see :class:`~.jobs.Cluster`.

        Raises:
            SystemExit: submitit or Slurm is missing, no time was given, or sbatch has refused them.
        """
        try:
            from submitit import SlurmExecutor
            from submitit.core.utils import FailedJobError
        except ImportError as error:
            raise SystemExit(MISSING) from error
        if 'time' not in self.settings:
            raise SystemExit(NO_TIME)
        if not any('gpu' in key or key == 'gres' for key in self.settings):
            print('no GPU is asked for: --slurm gpus=1 gives one to each run', flush=True)
        known = SlurmExecutor._valid_parameters()
        setup = [self.settings['setup']] if 'setup' in self.settings else None
        others = {key.replace('_', '-'): value for key, value in self.settings.items() if key not in known}
        start = 0
        try:
            executor = SlurmExecutor(folder, max_num_timeout=10**6)  # there is no end to going on
            executor.update_parameters(**{
                'job_name': re.sub(r'\W+', '-', title), 'signal_delay_s': SAVING, 'teardown': AFTER_A_KILL,
                **{key: value for key, value in self.settings.items() if key in known}, 'setup': setup,
                'additional_parameters': dict(requeue=True, **others)})
            for start in range(0, len(jobs), LARGEST):
                with executor.batch():
                    array = [executor.submit(Requeued(job)) for job in jobs[start:start + LARGEST]]
                yield from [job.job_id for job in array]
        except (RuntimeError, FailedJobError) as error:
            said = f' ({start} of {len(jobs)} jobs are queued; the same command comes back to them)' if start else ''
            reason = str(error).strip().splitlines()[-1:]  # submitit has printed all lines of sbatch
            raise SystemExit(f'--on slurm: {"".join(reason)}{said}') from error

    def poll(self, ids: Sequence[str]) -> set[str] | None:
        """Returns which jobs are still queued or running; None where squeue is not, or gets no answer."""
        arrays = sorted({number.partition('_')[0] for number in ids})
        try:
            said = subprocess.run(['squeue', '--noheader', '--array', '--format', '%i', '--jobs', ','.join(arrays)],
                                  capture_output=True, text=True, check=False, timeout=60)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        if said.returncode:
            return set() if 'Invalid job id' in said.stderr else None
        return set(ids) & set(said.stdout.split())

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs; Slurm gives a run its KillWait, half a minute by default, to save itself.

        Raises:
            SystemExit: this machine has no scancel.
        """
        try:
            subprocess.run(['scancel', *ids], check=False)  # one that has ended meanwhile is no error
        except FileNotFoundError as error:
            raise SystemExit(f'scancel is not on this machine, and jobs {", ".join(ids)} may be queued or running: '
                             'end them from one that has it') from error


def minutes(text: str) -> int:
    """Returns a time as Slurm reads it, in minutes: ``90``, ``90:00``, ``1:30:00``, ``1-12``, ``1-12:00:00``.

    Raises:
        SystemExit: it is none of these.
    """
    if not (found := re.fullmatch(r'(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?', text)):
        raise SystemExit(f'--slurm time={text} is no time: write minutes, or 1-12:00:00 for a day and a half')
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None or len(numbers) == 3:
        hours, minute, second = [*numbers, 0, 0][:3]
    else:
        hours, minute, second = 0, *[*numbers, 0][:2]
    return (int(days or 0) * 24 + hours) * 60 + minute + (second > 0)


class Requeued(NamedTuple):
    """A job that saves its run when Slurm's time is up or Slurm wants its place, and is requeued to go on.

    Slurm sends its signals to all processes of a job: the run gets them too, and saves itself. Of SIGUSR2, submitit's
    handler requeues the job; after SIGTERM, Slurm does so itself if the job was preempted and not cancelled.
    """
    job: Job

    def __call__(self) -> None:
        """Carries out the run, or goes on with it.

        Raises:
            KeyboardInterrupt: it was ended, after the run had saved what it needs to go on.
        """
        requeue, received, ended = signal.getsignal(signal.SIGUSR2), [], []

        def note(number: int, frame: object) -> None:
            received.append(number)
            if len(received) == 1 and not ended:  # neither saving nor requeueing is to be interrupted
                raise KeyboardInterrupt

        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, note)
        try:
            try:
                self.job()
            finally:
                ended.append(True)
        except KeyboardInterrupt:
            time.sleep(1)  # the signal may reach the run's processes a moment before this one
            if signal.SIGUSR2 not in received:
                raise
            requeue(signal.SIGUSR2, None)

    def checkpoint(self) -> 'DelayedSubmission':
        """Returns what submitit is to call next time: the same, as the run finds out by itself where to go on."""
        from submitit.helpers import DelayedSubmission
        return DelayedSubmission(self)

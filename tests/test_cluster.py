"""What carries runs out elsewhere: claims to folders, jobs, watching and ending them; and what it would take."""

import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from slurm_nodes import wait_until
from stub_runs import Stub

from mmseg_gpt.engine import nodes
from mmseg_gpt.engine.starts import TRAINING_LOCK
from mmseg_gpt.lab.runs import Run, look_after, read_record, run_all, work
from mmseg_gpt.lab.runs import claim as claims
from mmseg_gpt.lab.runs import jobs as jobs_module
from mmseg_gpt.lab.runs.claim import LEASE, Owner, claim, current_owner
from mmseg_gpt.lab.runs.execute import Attempt
from mmseg_gpt.lab.runs.jobs import Job, living_jobs, submit
from mmseg_gpt.lab.runs.loop import stop
from mmseg_gpt.lab.runs.on_ray import Ray
from mmseg_gpt.lab.runs.record import write_record
from mmseg_gpt.lab.runs.slurm import Requeued, Slurm, minutes
from mmseg_gpt.lab.runs.watch import cancel, look
from mmseg_gpt.lab.suite.estimate import (
    BENCHMARKED,
    START,
    Work,
    estimate,
    finished_after,
    rates_by_hand,
    rates_of_benchmark,
    seconds_of,
    work_of,
)
from mmseg_gpt.lab.suite.plans import PLANS

ROOT = Path(__file__).parents[1]
ELSEWHERE = Owner('another machine', 'elsewhere', 7)


@pytest.fixture(autouse=True)
def often(monkeypatch) -> None:
    """Lets runs that only pretend be looked at more often."""
    monkeypatch.setattr('mmseg_gpt.lab.runs.loop.PAUSE', .02)


# --- claims -----------------------------------------------------------------------------------------------------------


def flag_of(folder: Path, owner: Owner, age: float = 0.) -> Path:
    """A flag that was last written to so many seconds ago."""
    folder.mkdir(exist_ok=True)
    flag = folder / f'{claims.FLAG}of-{owner.pid}'
    flag.write_text(json.dumps(owner))
    os.utime(flag, (time.time() - age, ) * 2)
    return flag


def test_a_run_of_another_machine_is_left_alone_until_that_has_vanished(tmp_path):
    flag = flag_of(tmp_path, ELSEWHERE)
    assert claim(tmp_path) is None and current_owner(tmp_path) == ELSEWHERE
    os.utime(flag, (time.time() - LEASE - 1, ) * 2)
    (tmp_path / TRAINING_LOCK).touch()  # on some servers the lock of a machine that has vanished stays
    assert current_owner(tmp_path) is None
    with claim(tmp_path) as mine:
        assert mine and not flag.exists() and current_owner(tmp_path).pid == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == ['run.lock']


@contextmanager
def forked(work: Callable, *args: object, **options: object) -> Iterator[BaseProcess]:
    """A process that does something, as a fork of this one, which has all imports."""
    process = get_context('fork').Process(target=work, args=args, kwargs=options)
    process.start()
    yield process
    process.kill()
    process.join()


@pytest.fixture
def forks(monkeypatch) -> None:
    """Lets the server of forks be this process, which has all imports."""
    monkeypatch.setattr('mmseg_gpt.lab.runs.processes.get_context', lambda way: get_context('fork'))
    monkeypatch.setattr('mmseg_gpt.lab.runs.loop.start_server', lambda jobs: True)


def test_a_process_of_this_machine_that_was_killed_leaves_its_run_at_once(tmp_path):
    """Its flag is young, but the system has ended its lock."""
    def keep() -> None:
        made = claim(tmp_path)
        (tmp_path / f'claimed {made is not None}').touch()
        time.sleep(60)

    with forked(keep) as process:
        wait_until((tmp_path / 'claimed True').exists, 10, .01)
        assert claim(tmp_path) is None
        process.kill()
        process.join()
        with claim(tmp_path) as mine:
            assert mine


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells commands that who started them has ended')
@pytest.mark.parametrize('as_fork', [False, True])
def test_the_commands_of_a_process_that_was_killed_are_asked_to_end(forks, tmp_path, as_fork):
    """As nobody keeps its flag fresh for other machines any more."""
    with forked(run_all, [Stub('run', 60.)], tmp_path, forked=as_fork) as process:
        wait_until((tmp_path / 'run/calls').exists, 10, .05)
        process.kill()
        process.join()
        wait_until(lambda: claims.try_lock((tmp_path / 'run/run.lock').open()), 10, .05)
    assert (tmp_path / 'run/calls').read_text() == 'begun\n'


def test_the_age_of_a_flag_is_told_by_the_clock_of_its_file_server(tmp_path, monkeypatch):
    flag_of(tmp_path, ELSEWHERE)
    monkeypatch.setattr(claims.time, 'time', lambda: 10.**10)
    assert current_owner(tmp_path) == ELSEWHERE and len([*tmp_path.iterdir()]) == 1
    monkeypatch.setattr(claims.tempfile, 'TemporaryFile', lambda dir: (tmp_path / 'none/of it').open())
    assert current_owner(tmp_path) is None, 'where nothing can be written, this clock has to do'


@pytest.mark.parametrize('number, kept', [(errno.ENOENT, False), (errno.ESTALE, False), (errno.ENOSPC, True)])
def test_a_flag_that_is_gone_is_told_from_one_that_cannot_be_written(tmp_path, monkeypatch, number, kept):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claims, 'BEAT', 0.)
    with claim(tmp_path) as mine, monkeypatch.context() as patch:
        patch.setattr(Path, 'open', fail)
        assert mine.beat() is kept


def test_where_a_lock_outlives_its_machine_the_flag_counts(tmp_path, monkeypatch):
    """As on NFS, whose server does not know that a machine has vanished."""
    monkeypatch.setattr(claims, 'try_lock', lambda file: False)
    monkeypatch.setattr(claims, 'SETTLING', .2)
    assert claim(tmp_path) is None
    flag_of(tmp_path, ELSEWHERE, LEASE + 1)
    with claim(tmp_path) as mine:
        assert mine
    flag_of(tmp_path, ELSEWHERE._replace(machine=claims.this_machine()), LEASE + 1)
    assert claim(tmp_path) is None, 'a command of this machine holds the lock'
    flag_of(tmp_path / 'soon', ELSEWHERE, LEASE + 1)
    threading.Timer(.1, flag_of, (tmp_path / 'soon', ELSEWHERE._replace(pid=8))).start()
    assert claim(tmp_path / 'soon') is None, 'the lock was that of a process that had no flag yet'


@pytest.mark.parametrize('locks', [True, False])
def test_of_many_at_once_one_gets_a_folder(tmp_path, monkeypatch, locks):
    if not locks:  # as on a file system without them
        monkeypatch.setattr(claims, 'try_lock', lambda file: None)
    inside, most, turns = [], [], []

    def want() -> None:
        for _ in range(15):
            made = claim(tmp_path)
            if made:
                inside.append(1)
                most.append(len(inside))
                time.sleep(.002)
                inside.pop()
                turns.append(1)
                made.close()

    threads = [threading.Thread(target=want) for _ in range(6)]
    monkeypatch.setattr(claims.random, 'random', lambda: .001)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(turns) > 3


def test_an_owner_that_was_cut_off_ends_its_command_and_leaves_the_record_to_the_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(claims, 'BEAT', .2)
    run = Stub('cut', 60.)

    def take_over() -> None:
        wait_until(lambda: (tmp_path / 'cut/calls').exists())
        for flag in (tmp_path / 'cut').glob(f'{claims.FLAG}*'):
            flag.unlink()
        write_record(tmp_path / 'cut', dict(status='of the other', **run.identity()))

    thread = threading.Thread(target=take_over)
    thread.start()
    run_all([run], tmp_path)
    thread.join()
    assert read_record(tmp_path / 'cut')['status'] == 'of the other'
    assert 'another machine has taken it over' in capfd.readouterr().out
    assert (tmp_path / 'cut/calls').read_text() == 'begun\n'


def test_a_flag_is_kept_fresh_while_a_command_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, 'BEAT', .1)
    owners = []

    def look_at() -> None:
        wait_until(lambda: (tmp_path / 'run/calls').exists(), every=.02)
        (flag, _), = claims.flags(tmp_path / 'run')
        before = claims.changed(flag)
        wait_until(lambda: claims.changed(flag) > before, every=.02)
        owners.append(current_owner(tmp_path / 'run'))

    thread = threading.Thread(target=look_at)
    thread.start()
    run_all([Stub('run', 1.2)], tmp_path)
    thread.join()
    assert owners[0].pid == os.getpid()


@pytest.mark.parametrize('as_fork', [False, True])
def test_runs_at_once_are_spread_over_the_gpus(forks, tmp_path, monkeypatch, as_fork):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,GPU-5')
    runs = [Stub(f'run_{i}', 1.) for i in range(2)]
    run_all(runs, tmp_path, jobs=2, forked=as_fork)
    seen = [json.loads((tmp_path / run.name / 'number.json').read_text()) for run in runs]
    assert [each['gpus'] for each in seen] == ['4', 'GPU-5']
    run_all([Stub('alone')], tmp_path)
    assert json.loads((tmp_path / 'alone/number.json').read_text())['gpus'] == '4,GPU-5'


# --- jobs -------------------------------------------------------------------------------------------------------------


class Fake:
    """A cluster whose jobs wait until they are told to run, here."""
    name, address = 'fake', ''

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    def submit(self, jobs: Sequence[Job], folder: Path, title: str) -> list[str]:
        names = [f'{len(self.jobs) + i}' for i in range(len(jobs))]
        self.jobs.update(zip(names, jobs))
        return names

    def poll(self, ids: Sequence[str]) -> set[str] | None:
        return {*ids} & self.jobs.keys()

    def cancel(self, ids: Sequence[str]) -> None:
        for name in ids:
            del self.jobs[name]

    def run(self) -> None:
        """Runs all jobs, one after the other."""
        for name in [*self.jobs]:
            self.jobs[name]()
            del self.jobs[name]


@pytest.fixture
def fake(monkeypatch) -> Fake:
    """A cluster that does nothing by itself, known by its name; nobody waits long for it."""
    made = Fake()
    monkeypatch.setattr(jobs_module, 'make_cluster', lambda name, settings: made if name == 'fake' else None)
    monkeypatch.setattr('mmseg_gpt.lab.runs.watch.EVERY', 0.)
    return made


def states(runs: list[Stub], home: Path) -> Counter:
    return Counter(seen.state for seen in look(runs, home))


def leave(monkeypatch) -> None:
    """Lets whoever waits for jobs be stopped by Ctrl-C."""
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr('mmseg_gpt.lab.runs.watch.time.sleep', stop)


def test_jobs_are_submitted_once_and_go_on_when_nobody_waits(fake, tmp_path, monkeypatch, capsys):
    runs = [Stub(f'run_{i}', fails=i == 1) for i in range(3)]
    with monkeypatch.context() as patch:
        leave(patch)
        with pytest.raises(KeyboardInterrupt):
            run_all(runs[:2], tmp_path, cluster=fake)
        with pytest.raises(KeyboardInterrupt):
            run_all(runs, tmp_path, cluster=fake)
    assert [job.run for job in fake.jobs.values()] == runs
    assert '1 jobs submitted to fake, 2 are queued or running' in capsys.readouterr().out
    assert states(runs, tmp_path) == dict(queued=3)
    fake.run()
    assert states(runs, tmp_path) == dict(finished=2, failed=1)
    run_all(runs, tmp_path, cluster=fake)
    assert not fake.jobs and 'runs: 3 of 3 done before' in capsys.readouterr().out
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        leave(patch)
        run_all(runs, tmp_path, cluster=fake, again=True)
    assert [job.run for job in fake.jobs.values()] == [runs[1]] and states(runs, tmp_path)['queued'] == 1
    fake.run()
    assert (tmp_path / 'run_1/calls').read_text() == 'begun\nbegun\n' and states(runs, tmp_path)['failed'] == 1


def test_what_is_seen_of_runs(fake, tmp_path, capsys):
    runs = [Stub(name, fails=name == 'failed') for name in ('finished', 'failed', 'running', 'queued', 'lost', 'new')]
    run_all(runs[:2], tmp_path)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        leave(patch)
        run_all(runs[2:5], tmp_path, cluster=fake)
    del fake.jobs['2']
    (tmp_path / 'jobs/2_0_log.err').write_text('first\nslurmstepd: error: Exceeded job memory limit\n\n')
    flag_of(tmp_path / 'running', ELSEWHERE)
    (tmp_path / 'running/events.jsonl').write_text(
        '{"event": "progress", "phase": "train", "done": 2, "total": 9, "seconds_left": 61, "loss": 0.5}\n')
    capsys.readouterr()
    seen = {each.run.name: each for each in look(runs, tmp_path)}
    assert [seen[run.name].state for run in runs] == [
        'finished', 'failed', 'running', 'queued', 'interrupted', 'not begun']
    assert seen['running'].said == 'train 2/9, 1 min 1 s left, loss 0.5'
    assert (seen['failed'].said, seen['lost'].said) == (
        'crashed: out of luck', 'slurmstepd: error: Exceeded job memory limit')
    fake.poll = lambda ids: None  # this machine has no tools of the cluster
    assert states(runs, tmp_path)['queued'] == 2


def test_a_tool_watches_and_ends_jobs(fake, tmp_path, monkeypatch, capsys):
    runs = [Stub('one'), Stub('two')]
    monkeypatch.setattr('mmseg_gpt.lab.runs.series.prepare', lambda *_: None)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match='the jobs go on: --watch shows them'):
        leave(patch)
        work(runs, tmp_path, lambda: 'the table', cluster=fake)
    assert 'the table' in capsys.readouterr().out
    work(runs, tmp_path, lambda: 'no table', cancelling=True)
    assert not fake.jobs and '2 jobs of fake are ended' in capsys.readouterr().out
    work(runs, tmp_path, lambda: 'no table', watching=True)
    said = capsys.readouterr().out
    assert 'runs: 2 interrupted' in said and 'no table' not in said
    work(runs, tmp_path / 'empty', lambda: 'no table', cancelling=True)
    assert capsys.readouterr().out == 'nothing to end: no run is queued or running\n'


def test_processes_of_this_machine_are_ended_from_another_one_after_saving(tmp_path, capsys):
    runs = [Stub('one', 60.), Stub('two', 60.)]

    def work() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            run_all(runs, tmp_path, jobs=2)

    with forked(work) as process:
        wait_until(lambda: all((tmp_path / run.name / 'calls').exists() for run in runs), 10, .05)
        assert states(runs, tmp_path) == dict(running=2)
        look_after(runs, tmp_path, cancelling=True)
        process.join(30)
        assert process.exitcode == 0
    assert f'process {process.pid} is ended' in capsys.readouterr().out
    assert states(runs, tmp_path) == dict(interrupted=2)
    flag_of(tmp_path / 'one', ELSEWHERE)
    with pytest.raises(SystemExit, match='process 7 on elsewhere'):
        cancel(runs, tmp_path)


@pytest.mark.parametrize('began', ['', '1'])
def test_a_process_that_has_the_number_of_one_that_has_ended_is_left_alone(tmp_path, monkeypatch, capsys, began):
    """Whether its beginning is known or only that nobody has the lock."""
    with forked(time.sleep, 60) as process:
        flag_of(tmp_path / 'run', Owner(claims.this_machine(), 'here', process.pid, began))
        (tmp_path / 'run/run.lock').touch()
        cancel([Stub('run')], tmp_path)
        assert process.is_alive() and 'is not here any more' in capsys.readouterr().out
        if not began:
            held = (tmp_path / 'run/run.lock').open()
            assert claims.try_lock(held)
            cancel([Stub('run')], tmp_path)
            process.join(10)
            assert process.exitcode  # ended by the signal, whatever handler a test before has left to its forks


def test_a_job_waits_for_a_run_that_another_process_is_leaving(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, 'BEAT', .2)
    flag = flag_of(tmp_path / 'run', ELSEWHERE)
    threading.Timer(.3, flag.unlink).start()
    Job(Stub('run'), tmp_path, Path.cwd(), False)()
    assert read_record(tmp_path / 'run')['status'] == 'finished'
    monkeypatch.setattr(jobs_module, 'LEASE', .1)
    flag_of(tmp_path / 'held', ELSEWHERE)
    with pytest.raises(RuntimeError, match='another process is carrying out'):
        Job(Stub('held'), tmp_path, Path.cwd(), False)()


def test_a_job_is_requeued_though_its_run_ended_before_the_signal_came(monkeypatch):
    """Slurm signals all processes of a job, and that of the run may be the quicker one."""
    requeued = []

    def run() -> None:
        raise KeyboardInterrupt

    def wait(seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, lambda number, frame: requeued.append(number)), signal.getsignal(
        signal.SIGTERM)
    monkeypatch.setattr('mmseg_gpt.lab.runs.slurm.time.sleep', wait)
    try:
        Requeued(run)()
    finally:
        for number, handler in zip((signal.SIGUSR2, signal.SIGTERM), before):
            signal.signal(number, handler)
    assert requeued == [signal.SIGUSR2]


@pytest.fixture
def queue(monkeypatch) -> list[str]:
    """What is queued in a Slurm that refuses a second array, and whose squeue does not answer."""
    queued: list[str] = []

    class Executor:
        _valid_parameters = staticmethod(lambda: {'time'})
        batch = update_parameters = lambda *_, **__: nullcontext()

        def __init__(self, *_: object, **__: object) -> None:
            self.room = len(queued) + 2

        def submit(self, job: Job) -> SimpleNamespace:
            if len(queued) == self.room:
                raise RuntimeError('sbatch: error: Job violates accounting/QOS policy')
            queued.append(f'{len(queued)}_0')
            return SimpleNamespace(job_id=queued[-1])

    utils = ModuleType('submitit.core.utils')
    utils.FailedJobError = OSError
    package = ModuleType('submitit')
    package.SlurmExecutor = Executor
    for module in (package, ModuleType('submitit.core'), utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr('mmseg_gpt.lab.runs.slurm.LARGEST', 2)
    monkeypatch.setattr(Slurm, 'poll', lambda self, ids: None)
    monkeypatch.setattr('mmseg_gpt.lab.runs.watch.EVERY', 0.)
    return queued


def test_jobs_are_known_though_slurm_refuses_later_ones_or_does_not_say_whether_they_live(
        queue, tmp_path, monkeypatch, capsys):
    runs, cluster = [Stub(f'run_{i}') for i in range(4)], Slurm(dict(time='30'))
    with pytest.raises(SystemExit, match=r'QOS policy \(2 of 4 jobs are queued; the same command comes back'):
        submit([Job(run, tmp_path, Path.cwd(), False) for run in runs], cluster, 'runs')
    assert living_jobs(runs, tmp_path) == dict(run_0=False, run_1=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        leave(patch)
        run_all(runs[:1], tmp_path, cluster=cluster)
    assert queue == ['0_0', '1_0', '2_0']
    ended = []
    monkeypatch.setattr(Slurm, 'cancel', lambda self, ids: ended.extend(ids))
    cancel(runs, tmp_path)
    assert ended == ['0_0', '2_0', '1_0'], 'both jobs of the first run'
    monkeypatch.setattr(Slurm, 'poll', lambda self, ids: {'2_0'} & {*ids})
    assert living_jobs(runs, tmp_path) == dict(run_0=True)
    (tmp_path / 'run_3').mkdir()
    (tmp_path / 'run_3/job.json').write_text('{"on": "slurm", "address": "", "job": "2_0"}')  # of an earlier version
    assert living_jobs(runs[1:], tmp_path) == dict(run_3=True)


@pytest.mark.parametrize('text, expected', {
    '90': 90, '90:00': 90, '90:30': 91, '1:30:00': 90, '2-12': 3600, '1-02:30': 1590, '1-12:00:00': 2160}.items())
def test_times_are_read_as_slurm_reads_them(text, expected):
    assert minutes(text) == expected


@pytest.mark.parametrize('settings, said', [
    (dict(time='soon'), 'time=soon is no time'), (dict(time='2'), 'save itself 90 seconds'),
    (dict(time='30', signal_delay_s='1790'), 'save itself 1790 seconds')])
def test_times_that_lead_nowhere_are_refused(settings, said):
    with pytest.raises(SystemExit, match=said):
        Slurm(settings)


@pytest.mark.parametrize('settings, said', [
    (dict(mem='2G'), 'needs --slurm time=TIME'), (dict(time='30', nonsense='1'), 'unrecognized option .--nonsense=1'),
    (dict(time='30', mem='1G'), 'finds no cluster from this machine'), (dict(time='30', nodes='2'), '')])
def test_settings_of_slurm_are_checked_before_anything_else(queue, tmp_path, monkeypatch, settings, said):
    sbatch = tmp_path / 'sbatch'
    sbatch.write_text("""#!/bin/sh
[ "$1" = --help ] && exit 0
[ "$1" = --mem=1G ] && echo 'sbatch: fatal: Could not establish a configuration source' >&2 && exit 1
echo "sbatch: unrecognized option '$1'" >&2; echo 'Try "sbatch --help" for more information' >&2; exit 1
""")
    sbatch.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    monkeypatch.setattr(sys.modules['submitit'].SlurmExecutor, '_valid_parameters', lambda: {'time', 'nodes', 'mem'})
    with pytest.raises(SystemExit, match=said) if said else nullcontext():
        Slurm(settings).check()


def test_a_ray_cluster_that_does_not_answer_is_said_in_seconds():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
        with pytest.raises(SystemExit, match=f'there is no cluster at {address}'):
            Ray(dict(address=address)).check()
        free.listen()
        Ray(dict(address=address)).check()
    Ray({}).check()


# --- several nodes ----------------------------------------------------------------------------------------------------

SRUN = dict(SLURM_PROCID='5', SLURM_LOCALID='1', SLURM_JOB_ID='41', SLURM_STEP_ID='0', SLURM_STEP_NUM_TASKS='8',
            SLURM_STEP_NODELIST='gpu07')
PLACES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'CUDA_VISIBLE_DEVICES', *SRUN,
          'TORCHELASTIC_USE_AGENT_STORE')


@pytest.fixture
def places(monkeypatch) -> pytest.MonkeyPatch:
    """No variable says where this process is."""
    for name in PLACES:
        monkeypatch.setenv(name, '')  # so that it is put back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize('visible, local', [('0,1', '1'), ('3', '0'), (None, '1')])
def test_what_srun_says_is_what_torchrun_would_say(places, visible, local):
    for name, value in {**SRUN, **({'CUDA_VISIBLE_DEVICES': visible} if visible else {})}.items():
        places.setenv(name, value)
    assert nodes.under_srun()
    nodes.adopt_slurm()
    assert {name: os.environ[name] for name in PLACES[:5]} == dict(
        RANK='5', LOCAL_RANK=local, WORLD_SIZE='8', MASTER_ADDR='gpu07', MASTER_PORT='10287')
    places.setenv('SLURM_STEP_NUM_TASKS', '1')
    assert not nodes.under_srun()


@pytest.mark.parametrize('changed, said', [
    (dict(RANK=''), "RANK is ''"), (dict(MASTER_PORT='http'), "MASTER_PORT is 'http'"),
    (dict(RANK='2'), 'numbered from 0 to 1')])
def test_numbers_of_processes_that_make_no_sense_are_refused(places, changed, said):
    for name, value in dict(RANK='1', LOCAL_RANK='0', WORLD_SIZE='2', MASTER_ADDR='here', MASTER_PORT='1').items():
        places.setenv(name, changed.get(name, value))
    with pytest.raises(SystemExit, match=said):
        nodes.check_places()


def test_a_port_that_is_taken_is_said(places):
    with nodes.socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='2', MASTER_ADDR='', MASTER_PORT=port).items():
            places.setenv(name, value or 'here')
        with pytest.raises(SystemExit, match=f'port {port} of .* is not free'):
            nodes.check_places()


def test_a_run_that_was_taken_over_while_it_was_asked_to_end_is_left_to_the_other(tmp_path):
    lock, killed, saving = claim(tmp_path), [], iter([None] * 5)
    attempt = Attempt(Stub('a'), tmp_path, lock, None, lambda event: None)
    attempt.process = SimpleNamespace(poll=lambda: -9 if killed else next(saving, 0), terminate=lambda: None,
                                      kill=lambda: killed.append(True))
    write_record(tmp_path, dict(status='finished'))  # by another machine, which took this one for vanished
    lock.flag.unlink()
    lock.beaten = -LEASE
    stop([attempt])
    assert killed and lock.closed and read_record(tmp_path) == dict(status='finished')


# --- estimates --------------------------------------------------------------------------------------------------------


def test_operations_of_a_run_by_hand():
    """A ViT-B/16 of 12 blocks, 768 wide, with 196 patches, CLS and 100 prompts from the first block on."""
    entry = next(e for e in PLANS['table4']().entries if (e.method, e.task) == ('gpt', 'cub'))
    tokens = 196 + 1 + 100
    linear = 12 * tokens * (2 * 768 * 3 * 768 + 2 * 768 * 768 + 2 * 2 * 768 * 4 * 768) + 2 * 196 * 768 * 768
    attention = 12 * 2 * 2 * tokens**2 * 768
    work = work_of(entry.run.with_seed(0), 'gpt', 'cub')
    assert work.trained == 100 * 5394 and work.evaluated == 10 * 600 + 5794
    assert work.train_flops == pytest.approx(work.trained * (2 * linear + 3 * attention))
    assert work.eval_flops == pytest.approx(work.evaluated * (linear + attention))
    work = work_of(entry.run.with_seed(0), 'linear', 'cub')
    assert work.train_flops == pytest.approx(work.trained * (linear + attention)), 'no backward in the ViT'


def test_the_benchmarks_images_per_second_give_them_back():
    rates = rates_by_hand(40., 25.)
    assert seconds_of(Work(0, 0, 400 * BENCHMARKED['train'], 50 * BENCHMARKED['eval']), rates) == pytest.approx(
        START + 400 / 40 + 50 / 25)
    measured = rates_of_benchmark(ROOT / 'docs/benchmark_cpu.json')
    assert BENCHMARKED['train'] / measured.train == pytest.approx(7.62, abs=.01)  # seconds, as docs/performance.md says
    assert 'stands for a GPU' in measured.source


def test_a_benchmark_of_more_images_than_are_counted_gives_the_same_rate(tmp_path):
    """As on a GPU: a step has 16 images and costs are those of 2; 8 images are evaluated at once."""
    def of(batch: int, counted: int, images: int) -> tuple[float, float]:
        costs = dict(train=dict(flops=counted * BENCHMARKED['train']), eval=dict(flops=BENCHMARKED['eval']))
        times = dict(train=dict(ours=dict(median=batch / 40)), eval=dict(ours=dict(median=images / 25)))
        path = tmp_path / 'benchmark.json'
        path.write_text(json.dumps(dict(machine=dict(device='GPU'), sizes=dict(batch=batch), counted=counted,
                                        images=images, costs=dict(ours=costs), times=dict(default=times))))
        return rates_of_benchmark(path)[:2]

    expected = pytest.approx(rates_by_hand(40., 25.)[:2])
    assert of(16, 2, 8) == expected and of(1, 1, 1) == expected


def test_runs_start_on_the_gpu_that_is_free_first():
    assert finished_after([3, 1, 1, 1, 4], 1) == 10 and finished_after([3, 1, 1, 1, 4], 2) == 7
    assert finished_after([3, 1, 1, 1, 4], 64) == 4


def test_validations_by_the_authors_protocol_are_of_all_test_images():
    run = Run('', 'cls_gpt_mae_cub', (), ('--authors-protocol', ))
    assert work_of(run, 'gpt', 'cub').evaluated == 101 * 5794  # after each of 100 epochs, and at the end


def test_an_estimate_counts_shared_runs_once_and_invents_no_rate(tmp_path):
    tables = {name: PLANS[name]() for name in ('table4', 'table8')}
    tables['table4 again'] = tables['table4']
    blank, known = (estimate(tables, [0, 1], rates, [1, 8], 2.) for rates in (None, rates_by_hand(50., 50.)))
    assert '| table4 | 12 |' in blank and '| table4 again | 0 | 0 | 0 | 0' in blank and '| **all** | 36 |' in blank
    assert '| 8 |  |  |  |' in blank and 'Cost' not in blank and 'No rate is known' in blank
    assert 'GPU-hours at 2 are' in known and 'Rates: given: 50 training and 50 evaluated' in known
    (tmp_path / 'other.json').write_text('{"times": {}}')
    with pytest.raises(ValueError, match=r'other\.json has no times and costs'):
        rates_of_benchmark(tmp_path / 'other.json')
    with pytest.raises(ValueError, match=r'there is no file .*absent\.json'):
        rates_of_benchmark(tmp_path / 'absent.json')

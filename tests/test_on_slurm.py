"""Runs as jobs of Slurm, on a cluster that this starts."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_nodes import Nodes, kill, slurm, wait_until  # noqa: F401
from stub_runs import Stub
from test_suite import tiny_task
from tiny_run import differing, tiny_config

from mmseg_gpt.checkpoints import read_file
from mmseg_gpt.events import read_events
from mmseg_gpt.lab.runs import Run, read_record, run_all
from mmseg_gpt.lab.runs.jobs import Job, living_jobs, submit
from mmseg_gpt.lab.runs.record import EVENTS
from mmseg_gpt.lab.runs.slurm import Slurm
from mmseg_gpt.lab.runs.watch import look

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SETTINGS = dict(time='30', mem='1000')
ITERATIONS = 100


@pytest.fixture(scope='module', autouse=True)
def importable() -> Iterator[None]:
    """Lets jobs import this package and the stubs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', os.pathsep.join(map(str, (ROOT, ROOT / 'tools', ROOT / 'tests'))),
                     prepend=os.pathsep)
        yield


def submit_all(runs: list, home: Path) -> None:
    submit([Job(run, home, Path.cwd(), False) for run in runs], Slurm(SETTINGS), 'runs')


def states(runs: list, home: Path) -> Counter:
    return Counter(seen.state for seen in look(runs, home))


def wait_for_all(runs: list, home: Path, seconds: float = 240) -> None:
    wait_until(lambda: not living_jobs(runs, home), seconds, 1)


@pytest.fixture(scope='module')
def training(tmp_path_factory, importable) -> tuple[Path, Run, dict]:
    """A folder, a run in it that takes some seconds, and the checkpoint of that when nothing interrupts it."""
    folder = tmp_path_factory.mktemp('training')
    cfg = tiny_config(folder, train_cfg__max_iters=ITERATIONS, default_hooks__checkpoint__interval=10)
    cfg.dump(folder / 'tiny.py')
    run = Run('whole', str(folder / 'tiny.py'), tested=False)
    run_all([run], folder / 'runs')
    assert read_record(folder / 'runs/whole')['status'] == 'finished'
    return folder, run, read_file(folder / f'runs/whole/iter_{ITERATIONS}.pth')


def iterations_done(folder: Path) -> int:
    """How far a training has reported to be."""
    events = read_events(folder / EVENTS)[0]
    return max((event['done'] for event in events if event['event'] == 'progress'), default=0)


def out_of_time(nodes: Nodes, job: str, node: str) -> None:
    nodes.tool('scancel', '--signal=USR2', job)


def preempted(nodes: Nodes, job: str, node: str) -> None:
    nodes.tool('scontrol', 'requeue', job)


def killed(nodes: Nodes, job: str, node: str) -> None:
    """As the kernel does where memory runs out."""
    kill(nodes.steps(node)[:-1])


def vanishes(nodes: Nodes, job: str, node: str) -> None:
    nodes.cut_off(node)


@pytest.mark.parametrize('interrupt', [out_of_time, preempted, killed, vanishes])
def test_a_job_that_is_interrupted_is_requeued_and_ends_with_the_same_bits(interrupt, slurm, training):  # noqa: F811
    folder, whole, expected = training
    run, home = whole._replace(name=interrupt.__name__), folder / 'runs'
    submit_all([run, Stub(f'beside_{run.name}')], home)  # an array
    job = json.loads((home / run.name / 'job.json').read_text())[-1]['job']
    wait_until(lambda: iterations_done(home / run.name) >= 15)
    node = slurm.tool('squeue', '-h', '-j', job, '-o', '%N')
    interrupt(slurm, job, node)
    wait_for_all([run], home)
    if interrupt is vanishes:
        slurm.start(node)
    record = read_record(home / run.name)
    assert (record['status'], record['starts']) == ('finished', 2)
    assert differing(read_file(home / run.name / f'iter_{ITERATIONS}.pth'), expected) == []
    stops = [path.name for path in (home / run.name).glob('iter_*.pth') if path.stem not in {
        f'iter_{i}' for i in range(10, ITERATIONS + 1, 10)}]
    assert stops or interrupt in (killed, vanishes), 'whoever was warned has saved where it was'


def test_200_runs_are_each_carried_out_once(slurm, tmp_path):  # noqa: F811
    runs = [Stub(f'stub_{i}', fails=i % 50 == 7) for i in range(200)]
    submit_all(runs, tmp_path)
    submit_all(runs[:20], tmp_path)  # by somebody else, at the same time
    wait_for_all(runs, tmp_path, 1800)
    assert states(runs, tmp_path) == dict(finished=196, failed=4)
    for run in runs:
        assert (tmp_path / run.name / 'calls').read_text() == ('begun\n' if run.fails else 'begun\nended\n')
        assert read_record(tmp_path / run.name)['starts'] == 1


def search(*arguments: str) -> subprocess.Popen:
    """Starts tools/search.py."""
    return subprocess.Popen([sys.executable, '-u', str(ROOT / 'tools/search.py'), *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def test_jobs_are_left_watched_and_ended_from_other_processes(slurm, tmp_path):  # noqa: F811
    command = [str(tiny_task(tmp_path)), '--lr', '0.01', '0.02', '0.03', '--out', str(tmp_path), '--cfg-options',
               'train_cfg.max_epochs=1200', 'default_hooks.checkpoint.interval=300', 'train_cfg.val_interval=1000']
    where = ['--on', 'slurm', '--slurm', 'time=30', 'mem=1000']
    first = search(*command, *where)
    runs = list(wait_for_runs(tmp_path / 'runs', 3))
    wait_until(lambda: iterations_done(runs[0]) >= 5)
    first.send_signal(signal.SIGINT)
    assert 'the jobs go on: --watch shows them' in first.communicate(timeout=60)[0] and first.returncode == 1
    assert len(slurm.tool('squeue', '-h', '--array').splitlines()) == 3
    watching = search(*command, '--watch')
    assert watching.stdout.readline() == 'runs: 2 running, 1 queued\n'
    again = search(*command, *where)
    wait_until(lambda: '0 jobs submitted to slurm, 3 are queued or running' in again.stdout.readline())
    assert '3 jobs of slurm are ended' in search(*command, '--cancel').communicate(timeout=60)[0]
    assert '3 interrupted' in watching.communicate(timeout=60)[0]
    assert again.wait(timeout=60) == 0
    assert [read_record(run)['status'] for run in runs[:2]] == ['started'] * 2 and not (runs[2] / 'run.json').exists()
    assert (runs[0] / 'last_checkpoint').exists(), 'it has saved where it was ended'
    last = search(*command, *where)
    assert '3 finished' in last.communicate(timeout=600)[0] and last.returncode == 0
    assert [read_record(run)['starts'] for run in runs] == [2, 2, 1]
    assert '3 finished' in search(*command, '--watch').communicate(timeout=60)[0]


def wait_for_runs(home: Path, number: int) -> Iterator[Path]:
    """The folders of runs that have been submitted, in their order."""
    wait_until(lambda: len([*home.glob('*/*/job.json')]) == number)
    yield from sorted(path.parent for path in home.glob('*/*/job.json'))

"""Runs as jobs of a Ray cluster on this machine."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_nodes import wait_until
from stub_runs import Stub

from mmseg_gpt.lab.runs import read_record
from mmseg_gpt.lab.runs.claim import current_owner
from mmseg_gpt.lab.runs.jobs import Job, living_jobs, submit
from mmseg_gpt.lab.runs.on_ray import Ray
from mmseg_gpt.lab.runs.watch import cancel, look

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def cluster(tmp_path_factory) -> Iterator[Ray]:
    """A cluster of two places, with a connection to it."""
    ray = pytest.importorskip('ray')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', os.pathsep.join(map(str, (ROOT, ROOT / 'tools', ROOT / 'tests'))),
                     prepend=os.pathsep)
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        tool = [sys.executable, '-m', 'ray.scripts.scripts']
        subprocess.run([*tool, 'start', '--head', '--num-cpus', '2', '--num-gpus', '1', '--port', '6391',
                        '--include-dashboard', 'false', '--object-store-memory', '100000000', '--disable-usage-stats'],
                       check=True, capture_output=True)
        try:
            yield Ray(dict(address='127.0.0.1:6391', gpus='0.5'))
        finally:
            ray.shutdown()
            subprocess.run([*tool, 'stop', '--force'], check=True, capture_output=True)


def submit_all(runs: list[Stub], home: Path, cluster: Ray) -> None:
    submit([Job(run, home, Path.cwd(), False) for run in runs], cluster, 'runs')


def states(runs: list[Stub], home: Path) -> Counter:
    return Counter(seen.state for seen in look(runs, home))


def test_runs_are_each_carried_out_once_two_at_a_time(cluster, tmp_path):
    runs = [Stub(f'stub_{i}', fails=i == 3) for i in range(8)]
    submit_all(runs, tmp_path, cluster)
    wait_until(lambda: not living_jobs(runs, tmp_path), 300, 1)
    assert states(runs, tmp_path) == dict(finished=7, failed=1)
    for run in runs:
        assert (tmp_path / run.name / 'calls').read_text() == ('begun\n' if run.fails else 'begun\nended\n')


def test_jobs_live_on_without_whoever_submitted_them_and_are_ended_from_elsewhere(cluster, tmp_path):
    runs = [Stub(f'long_{i}', 60.) for i in range(3)]
    submitting = ('from pathlib import Path; from stub_runs import Stub; from mmseg_gpt.lab.runs.on_ray import Ray; '
                  'from test_on_ray import submit_all; submit_all([Stub(f"long_{i}", 60.) for i in range(3)], '
                  f'Path({str(tmp_path)!r}), Ray(dict(address="127.0.0.1:6391", gpus="0.5")))')
    subprocess.run([sys.executable, '-c', submitting], check=True, timeout=120)
    wait_until(lambda: states(runs, tmp_path) == dict(running=2, queued=1))
    cancel(runs, tmp_path)
    wait_until(lambda: states(runs, tmp_path) == dict(interrupted=3), 60, 1)
    assert Counter(read_record(tmp_path / run.name).get('status') for run in runs) == {'started': 2, None: 1}


def test_a_run_whose_worker_was_killed_is_begun_again_by_another_one(cluster, tmp_path):
    run = Stub('killed', 10.)
    submit_all([run], tmp_path, cluster)
    wait_until(lambda: (tmp_path / 'killed/calls').exists())
    os.kill(current_owner(tmp_path / 'killed').pid, signal.SIGKILL)
    wait_until(lambda: not living_jobs([run], tmp_path), 200, 1)
    record = read_record(tmp_path / 'killed')
    assert (record['status'], record['starts']) == ('finished', 2)
    assert (tmp_path / 'killed/calls').read_text() == 'begun\nbegun\nended\n', 'the first command ended with its worker'

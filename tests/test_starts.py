"""The starts of a run in its work directory: one at a time, named in their order."""

import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mmseg_gpt.engine import Runner
from mmseg_gpt.engine.starts import TRAINING_LOCK, name_of_start, sole_training


def train(folder: Path, say: Connection) -> None:
    """Does nothing in a work directory, together with a worker process."""
    with sole_training(folder):
        if worker := os.fork():
            say.send(worker)
        time.sleep(60)


def test_a_second_training_in_a_work_directory_is_refused_until_the_first_has_ended(tmp_path):
    heard, said = get_context('fork').Pipe()
    first = get_context('fork').Process(target=train, args=(tmp_path, said))
    first.start()
    worker = heard.recv()
    try:
        second = Runner.__new__(Runner)
        second._work_dir = str(tmp_path)
        with pytest.raises(SystemExit, match=f'training is at work in {tmp_path} .process {first.pid} on .*: wait for'):
            second.train()
        first.kill()
        first.join()
        with sole_training(tmp_path):  # though the worker has not ended yet
            assert (tmp_path / TRAINING_LOCK).read_text().startswith(f'process {os.getpid()} on ')
    finally:
        first.kill()
        os.kill(worker, signal.SIGKILL)


def test_a_start_is_named_after_all_before_it_though_clocks_are_turned_back(tmp_path):
    """In the last hour of summer time a run began and was killed; the clock says an earlier time when it goes on."""
    now = '20261025_020007'
    assert name_of_start(now, tmp_path) == now
    for name in ('20260101_000000', '20261025_025959', 'attention_of_cl'):
        (tmp_path / name).mkdir()
    assert name_of_start(now, tmp_path) == '20261025_030000'
    assert name_of_start('20261025_025959', tmp_path) == '20261025_030000'
    assert name_of_start('20261025_030007', tmp_path) == '20261025_030007'
    (tmp_path / '20990101_000000').mkdir()
    runner = Runner.__new__(Runner)
    runner._work_dir, runner._launcher, runner._distributed = str(tmp_path), 'none', False
    runner.setup_env({})
    assert runner.timestamp == '20990101_000001'

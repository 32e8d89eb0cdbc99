"""Where results come from."""

import os
import subprocess

import pytest
from stub_runs import Stub

from mmseg_gpt.lab import provenance
from mmseg_gpt.lab.runs import read_record
from mmseg_gpt.lab.runs.claim import claim
from mmseg_gpt.lab.runs.execute import Attempt
from mmseg_gpt.lab.runs.record import difference, write_record


@pytest.mark.parametrize('installed', [False, True])
def test_a_copy_inside_another_repository_has_not_that_one_s_commit(tmp_path, monkeypatch, installed):
    copy = tmp_path / 'other/copy'
    copy.mkdir(parents=True)
    subprocess.run(['git', 'init', '-q', tmp_path / 'other'], check=True)
    subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-q', '--allow-empty', '-m', 'one'],
                   cwd=tmp_path / 'other', check=True)
    monkeypatch.setattr(provenance, 'CLONE', copy)
    monkeypatch.setattr(provenance, 'HOME', copy / 'mmseg_gpt/.mim' if installed else copy)
    assert provenance.commit() is None
    for name in ('CLONE', 'HOME'):
        monkeypatch.setattr(provenance, name, tmp_path / 'other')
    assert provenance.commit()


def test_a_run_that_goes_on_with_other_code_says_all_commits(tmp_path, monkeypatch):
    commits = iter(['one', 'two', 'two', 'three', 'two'])
    monkeypatch.setattr(provenance, 'commit', lambda: next(commits))
    for _ in range(5):
        with claim(tmp_path) as lock:
            Attempt(Stub('a'), tmp_path, lock, None, None)
    made_with = read_record(tmp_path)['made_with']
    assert made_with['commit'] == 'two' and [each['commit'] for each in made_with['earlier']] == ['one', 'three']
    assert provenance.origins([made_with])['commit'] == ['one', 'three', 'two']


def test_a_run_that_goes_on_without_its_pretrained_file_is_of_that_file_all_the_same(tmp_path, monkeypatch):
    run = Stub('a')
    for found, known in (('abc', 'abc'), (None, 'abc')):
        monkeypatch.setattr(Stub, 'identity', lambda _, found=found: dict(settings={}, pretrained=found))
        with claim(tmp_path) as lock:
            Attempt(run, tmp_path, lock, None, None)
        assert read_record(tmp_path)['pretrained'] == known
    monkeypatch.setattr(Stub, 'identity', lambda _: dict(settings={}, pretrained='def'))
    assert 'had the SHA-256 abc and has def' in difference(read_record(tmp_path), run)


def test_the_time_of_an_attempt_that_was_killed_is_counted(tmp_path):
    """It has said nothing of it; its log and its events were last written 100 s after its record."""
    write_record(tmp_path, dict(status='started', starts=1, seconds=7.))
    for name, time in (('run.json', 1000.), ('log.txt', 1090.), ('events.jsonl', 1100.)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    with claim(tmp_path) as lock:
        Attempt(Stub('a'), tmp_path, lock, None, None).end()
    assert 107 <= read_record(tmp_path)['seconds'] < 108
    with claim(tmp_path) as lock:  # which was interrupted in an orderly way, and has counted its time
        Attempt(Stub('a'), tmp_path, lock, None, None).end()
    assert read_record(tmp_path)['seconds'] < 108

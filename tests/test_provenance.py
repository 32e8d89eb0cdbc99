"""Where results come from."""

import subprocess

import pytest

from mmseg_gpt.lab import provenance


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

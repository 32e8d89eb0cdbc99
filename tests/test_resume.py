"""A resumed run is the run that was not interrupted, bit for bit; and what cannot be resumed is refused."""

import logging
import shutil

import pytest
import torch
from tiny_run import differing, run, saved, tiny_config

from mmseg_gpt.checkpoints import CheckpointError


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder with a run of 6 iterations."""
    folder = tmp_path_factory.mktemp('whole')
    run(tiny_config(folder))
    return folder


def resumed(source, tmp_path, **options):
    """Copies a run up to iteration 4, resumes it and returns its last checkpoint."""
    shutil.copytree(source, tmp_path / 'copy')
    folder = tmp_path / 'copy'
    (folder / 'run/iter_6.pth').unlink()
    (folder / 'run/last_checkpoint').write_text(str(folder / 'run/iter_4.pth'))
    run(tiny_config(folder, resume=True, **options))
    return saved(folder, 6)


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_equals_uninterrupted(whole, tmp_path, workers):
    again = resumed(whole, tmp_path, train_dataloader__num_workers=workers)
    assert differing(saved(whole, 6), again) == []


def test_the_last_iterations_changed_something(whole):
    """Or else the test above would show nothing."""
    changed = differing(saved(whole, 4), saved(whole, 6))
    assert {'state_dict.backbone.prompt.tokens', 'state_dict.decode_head.conv_seg.weight'} <= set(changed)
    assert any(name.startswith('optimizer') for name in changed)

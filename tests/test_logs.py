"""The log of a run, over its resumptions."""

import json
from pathlib import Path

import pytest

from mmseg_gpt.lab.scalars import read_scalars


def log(folder: Path, start: str, *lines: dict | str) -> None:
    """Writes the log of one start."""
    file = folder / start / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines) + '\n')


def test_lines_of_a_step_become_one_and_validation_is_apart(tmp_path):
    log(tmp_path, '20260101_000000', dict(loss=3., iter=50, step=50), {'gates/block_01': .1, 'iter': 50, 'step': 50},
        dict(mIoU=7., step=50))
    assert read_scalars(tmp_path) == ([{'loss': 3., 'iter': 50, 'step': 50, 'gates/block_01': .1}],
                                      [dict(mIoU=7., step=50)])


def test_what_a_resumed_run_has_done_again_counts_once(tmp_path):
    """The first start was killed at 150 and resumed from 50: its lines after that are of weights that were lost."""
    log(tmp_path, '20260101_000000', *(dict(loss=1., iter=i, step=i) for i in (50, 100, 149)))
    log(tmp_path, '20260102_000000', *(dict(loss=2., iter=i, step=i) for i in (75, 125)))
    assert [(line['step'], line['loss']) for line in read_scalars(tmp_path)[0]] == [(50, 1.), (75, 2.), (125, 2.)]


def test_what_was_validated_and_then_lost_does_not_count(tmp_path):
    """By iteration; and by epoch in runs that count epochs, whose validations have epochs as steps."""
    for name, counted in (('iterations', 100), ('epochs', 2)):
        lines = [dict(loss=1., iter=i, step=i, **(dict(epoch=i // 50) if name == 'epochs' else {}))
                 for i in (50, 100, 150)]
        scores = [dict(mIoU=float(i), step=i * counted // 2) for i in (1, 2, 3)]
        log(tmp_path / name, '1', *lines, *scores)
        log(tmp_path / name, '2', lines[1] | dict(loss=2.))
    assert [line['mIoU'] for line in read_scalars(tmp_path / 'iterations')[1]] == [1.]
    assert [line['mIoU'] for line in read_scalars(tmp_path / 'epochs')[1]] == [1.]


def test_a_step_that_is_done_again_leaves_nothing_of_the_first_time(tmp_path):
    log(tmp_path, '1', dict(loss=1., lr=.1, iter=50, step=50))
    log(tmp_path, '2', dict(loss=2., iter=50, step=50))
    assert read_scalars(tmp_path)[0] == [dict(loss=2., iter=50, step=50)]


def test_a_line_that_a_kill_has_cut_off_is_left_out_and_other_damage_is_an_error(tmp_path):
    log(tmp_path / 'killed', '1', dict(loss=1., iter=1, step=1), '{"loss": 1., "it')
    assert len(read_scalars(tmp_path / 'killed')[0]) == 1
    log(tmp_path / 'number', '1', '5', dict(loss=1., iter=1, step=1))
    with pytest.raises(ValueError, match=r'scalars\.json, line 1 is damaged'):
        read_scalars(tmp_path / 'number')
    log(tmp_path / 'damaged', '1', '{"loss": 1., "it', dict(loss=1., iter=1, step=1))
    with pytest.raises(ValueError, match=r'scalars\.json, line 1 is damaged'):
        read_scalars(tmp_path / 'damaged')


def test_a_folder_without_a_log(tmp_path):
    with pytest.raises(ValueError, match='is not the work directory of a training'):
        read_scalars(tmp_path)

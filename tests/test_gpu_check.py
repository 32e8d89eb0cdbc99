"""The check of a GPU: it keeps to its time, loses nothing, and all of it can be tried on a CPU."""

import json
import runpy
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmseg_gpt.lab.gpu_check import numbers, speed
from mmseg_gpt.lab.gpu_check.numbers import SIZES, Setting
from mmseg_gpt.lab.gpu_check.parts import Parts
from mmseg_gpt.lab.gpu_check.report import SECTIONS, TITLES, report
from mmseg_gpt.lab.gpu_check.run import NEEDED, check
from mmseg_gpt.lab.gpu_check.speed import largest_batch

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'


def written(folder: Path) -> dict:
    return json.loads((folder / 'gpu_check.json').read_text())


def test_what_fails_or_takes_too_long_costs_nothing_else(tmp_path):
    parts = Parts(tmp_path, 3)
    parts.run('machine', 0, lambda: dict(device='a GPU'))
    parts.run('float64', 0, lambda: 1 / 0)
    parts.run('compiled', 100, lambda: pytest.fail('there was no time'))
    begun = time.monotonic()
    parts.run('kernels', 0, lambda: time.sleep(10))
    assert time.monotonic() - begun < 6
    found = written(tmp_path)
    assert found['machine'] == dict(device='a GPU') and found['float64']['not_run'].startswith('ZeroDivisionError')
    assert found['compiled']['not_run'].startswith('it needs 100 s, and ')
    assert found['kernels']['not_run'] == 'its time was over'
    page = (tmp_path / 'gpu_check.md').read_text()
    assert '| device | a GPU |' in page and 'Not measured: ZeroDivisionError: division by zero' in page


def test_an_interruption_leaves_the_report_of_what_was_done(tmp_path):
    def interrupt() -> None:
        assert written(tmp_path)['machine'] == dict(device='a GPU')  # written before the next part begins
        raise KeyboardInterrupt

    parts = Parts(tmp_path, 100)
    parts.run('machine', 0, lambda: dict(device='a GPU'))
    with pytest.raises(KeyboardInterrupt):
        parts.run('float64', 0, interrupt)
    assert written(tmp_path)['float64'] == dict(not_run='stopped from outside')
    assert 'Not measured: stopped from outside' in (tmp_path / 'gpu_check.md').read_text()


def test_parts_fit_into_eight_minutes_and_each_has_a_section():
    tool = runpy.run_path(str(ROOT / 'tools/gpu_check.py'))
    assert sum(NEEDED.values()) <= 8 * 60 and tool['PARTS'] == tuple(NEEDED)
    assert NEEDED.keys() == TITLES.keys() == SECTIONS.keys()


def test_parity_of_a_cpu_with_itself(tmp_path):
    found = check(CONFIG, tmp_path, torch.device('cpu'), 100, quick=True, only=('machine', 'float64', 'rate'))
    assert found['float64']['passed'] and set(found) == {'machine', 'float64', 'rate', 'seconds'}
    assert found['float64']['compared']['ours on a CPU']['gradients'][0] == 0
    page = (tmp_path / 'gpu_check.md').read_text()
    assert 'The tolerance of 1e-12 holds.' in page and '| matrix products, bfloat16, TFLOP/s |' in page


def test_a_profiler_that_sees_nothing_is_said_to(tmp_path, monkeypatch):
    """As without CUPTI, where the report had 0 launches."""
    monkeypatch.setattr(speed, 'profile', lambda **_: nullcontext(SimpleNamespace(key_averages=list)))
    check(CONFIG, tmp_path, torch.device('cpu'), 60, quick=True, only=['kernels'])
    assert 'Not measured: the profiler has seen no kernel' in (tmp_path / 'gpu_check.md').read_text()


def test_other_numbers_are_said_to_be_other(tmp_path):
    parts = Parts(tmp_path, 100)
    parts.run('float64', 0, lambda: dict(compared=dict(paper=dict(loss=(float('nan'), 'total'))), tolerance=1e-12,
                                         passed=False))
    assert '**is exceeded**' in report(written(tmp_path)) and '| paper | nan |' in report(written(tmp_path))


def test_what_is_not_a_number_is_within_no_tolerance(monkeypatch):
    """Python's max((1e-15, nan)) is 1e-15."""
    found = dict(loss=(1e-15, 'total'), gradients=(float('nan'), 'tokens'), statistics=(0., 'mean'))
    for name, value in dict(draw_weights=None, redrawn_weights=None, results={}, compare=found).items():
        monkeypatch.setattr(numbers, name, lambda *_, value=value: value)
    monkeypatch.setattr(numbers, 'build', lambda *_: torch.nn.Module())
    assert not numbers.float64(Setting(None, torch.device('cpu'), SIZES))['passed']


@pytest.mark.parametrize('room', [1, 2, 5, 7, 8])
def test_the_largest_batch_is_found_to_an_eighth(room, monkeypatch):
    monkeypatch.setattr(speed, 'fits_in_memory', lambda make, batch: batch <= room)
    setting = Setting(None, torch.device('cpu'), SIZES, quick=True)  # begins with 2 images
    step = SimpleNamespace(batch=None)
    if room > 1:
        assert largest_batch(step, setting) == room
    else:
        with pytest.raises(RuntimeError, match='not even 2 images fit'):
            largest_batch(step, setting)


@pytest.mark.slow
def test_all_parts_on_a_cpu(tmp_path):
    found = check(CONFIG, tmp_path, torch.device('cpu'), 600, quick=True)
    assert set(found) == {*NEEDED, 'seconds'}
    failed = {name for name, each in found.items() if isinstance(each, dict) and 'not_run' in each}
    assert failed <= {'cuda_graph', 'deterministic_graph'}
    assert found['sample_training']['same_weights'] and 'same_with_graph' not in found['sample_training']
    assert found['deterministic']['weights after two steps']
    assert all(row['images_per_second'] > 0 for row in found['images_per_second']['rows'])
    page = (tmp_path / 'gpu_check.md').read_text()
    assert all(f'## {title}' in page for title in TITLES.values()) and 'failed' not in page

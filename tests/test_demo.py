"""The whole demo through its command line, with few images and iterations."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import run_demo

from mmseg_gpt.lab.demo.steps import Step, run_steps
from mmseg_gpt.lab.runs.progress import in_words

ROOT = Path(__file__).parent.parent
demo = runpy.run_path(str(ROOT / 'tools/demo.py'))


def test_shows_each_command_and_the_table(quick_demo):
    work_dir, printed = quick_demo
    for tool in ('make_sample_dataset', 'train', 'test', 'plot_gates', 'plot_attention'):
        assert f'$ python tools/{tool}.py' in printed
    assert '[1/8]' in printed and 'left in all' in printed and 'CPUs: ' in printed
    assert (work_dir / 'results.md').read_text() in printed


def test_learns_something_even_so(quick_demo):
    results = json.loads((quick_demo[0] / 'results.json').read_text())
    reached = results['single_scale']['mIoU']
    assert reached > 2 * results['majority']['mIoU'] and reached > results['untrained']['mIoU'] + 2
    assert results['multi_scale']['mIoU'] > results['majority']['mIoU']
    assert set(results['single_scale']['per_class']) == set(results['multi_scale']['per_class'])


def test_counts_parameters(quick_demo):
    parameters = json.loads((quick_demo[0] / 'results.json').read_text())['parameters']
    # 10 prompts of width 128, 11 gates, 12 temperatures.
    assert parameters['prompts'] == 10 * 128 + 11 + 12
    assert parameters['prompts'] < parameters['trained'] < parameters['total']


def test_pictures_are_not_blank(quick_demo):
    predictions, gates, attention = (cv2.imread(str(quick_demo[0] / f'{name}.png'))
                                     for name in ('predictions', 'gates', 'attention'))
    assert predictions.shape == (890, 1200, 3) and predictions.std() > 30
    assert gates.std() > 5 and attention.std() > 30


def test_finished_steps_are_skipped(quick_demo):
    again = run_demo('--quick', '--work-dir', quick_demo[0])
    assert again.returncode == 0 and 'steps: 8 of 8 done before' in again.stdout and '$ python' not in again.stdout


@pytest.mark.slow
def test_the_whole_demo_learns(tmp_path):
    result = run_demo('--work-dir', tmp_path, timeout=3600)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results['single_scale']['mIoU'] > 60
    assert results['multi_scale']['mIoU'] > results['single_scale']['mIoU']
    assert results['untrained']['mIoU'] < 10


def test_says_something_before_it_imports_what_takes_seconds():
    code = 'import sys; import demo; assert "torch" not in sys.modules'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT / 'tools', check=True)


@pytest.mark.parametrize('prefix, said', [(ROOT / '.venv', True), ('/usr', False), ('/elsewhere/.venv', False)])
def test_says_how_to_activate_our_environment_and_no_other(monkeypatch, prefix, said):
    monkeypatch.setattr('sys.prefix', str(prefix))
    assert ('.venv/bin/activate' in demo['introduction'](Path('work_dirs/demo'))) == said


def test_a_failed_step_names_its_log(tmp_path):
    step = Step('broken', 'fail', ('python', '-c', 'raise SystemExit("because")'), (), 1)
    with pytest.raises(SystemExit, match=r'because(.|\n)*failed \(crashed: because\).*broken/log\.txt'):
        run_steps([step], tmp_path)
    step = step._replace(command=('python', '-c', 'print("nothing")'), outputs=(tmp_path / 'absent', ))
    with pytest.raises(SystemExit, match=r'nothing(.|\n)*failed \(incomplete: it has not left .*absent\)'):
        run_steps([step], tmp_path)


COUNT = 'import sys; open(sys.argv[1], "a").write("x")'


def chain(folder: Path) -> list[Step]:
    """Two steps, each with a config, that add a letter to a file whenever they are run."""
    for name in ('first', 'second'):
        (folder / f'{name}.py').write_text('a = 1')
    return [Step(name, name, ('python', '-c', COUNT, str(folder / name), str(folder / f'{name}.py')),
                 (folder / name, ), 1) for name in ('first', 'second')]


def runs(folder: Path) -> tuple[int, int]:
    return tuple(len((folder / name).read_text()) for name in ('first', 'second'))


def test_an_edited_config_is_run_again_with_what_follows(tmp_path):
    steps = chain(tmp_path)
    for _ in range(2):
        run_steps(steps, tmp_path)
    assert runs(tmp_path) == (1, 1)
    (tmp_path / 'base.py').write_text('b = 1')
    (tmp_path / 'second.py').write_text('_base_ = ["base.py"]')
    run_steps(steps, tmp_path)
    assert runs(tmp_path) == (1, 2)
    (tmp_path / 'base.py').write_text('b = 2')
    assert not steps[1].is_done(tmp_path / 'steps/second') and steps[0].is_done(tmp_path / 'steps/first')
    (tmp_path / 'first.py').write_text('a = 2')
    run_steps(steps, tmp_path)
    assert runs(tmp_path) == (2, 3)


def test_another_version_of_the_package_runs_again(tmp_path, monkeypatch):
    steps = chain(tmp_path)
    run_steps(steps, tmp_path)
    monkeypatch.setattr('mmseg_gpt.lab.demo.steps.__version__', 'another')
    run_steps(steps, tmp_path)
    assert runs(tmp_path) == (2, 2)


def test_what_runs_again_is_not_done_before_it_has_finished(tmp_path):
    steps = chain(tmp_path)
    run_steps(steps, tmp_path)
    broken = steps[0]._replace(command=('python', '-c', 'raise SystemExit(1)'))
    with pytest.raises(SystemExit, match='failed'):
        run_steps([broken, steps[1]], tmp_path)
    run_steps(steps, tmp_path)
    assert runs(tmp_path) == (2, 2)


@pytest.mark.parametrize('event, words', [
    (dict(phase='train', done=40, total=300, seconds_left=79.2, loss=0.87163),
     'train 40/300, 1 min 19 s left, loss 0.8716'),
    (dict(phase='val', done=5, total=5, **{'accuracy/top1': 70.5}), 'val 5/5, accuracy/top1 70.5'),
    (dict(phase='val', done=10, total=10, mIoU=80.1, loss=None), 'val 10/10, mIoU 80.1'),
    (dict(phase='draw', done=250, total=1600), 'draw 250/1600'),
])
def test_says_how_far_a_command_is(event, words):
    assert in_words(event) == words

"""Several runs in one table and one picture."""

import csv
import json
from pathlib import Path

import pytest
import torch
from made_runs import make_run, run_tool

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.compare import (
    Compared,
    Difference,
    check,
    class_differences,
    largest,
    markdown,
    table,
)
from mmseg_gpt.lab.compare_figures import draw_comparison
from mmseg_gpt.lab.finished import read_run
from mmseg_gpt.settings import protocol_of

CONFIG = find_config(str(Path(__file__).parents[1] / 'configs/setr_pup_gpt_mae_ade20k.py'))
LOG = ({'time': 2., 'progress/peak_memory_mib': 100.}, {'time': 4., 'progress/peak_memory_mib': 300.})


def segmentation(folder: Path, miou: float, sky: float | None, sea: float | None, **options) -> Path:
    """A made-up run of segmentation with two classes."""
    return make_run(folder, CONFIG.copy(), miou, per_class=dict(sky=sky, sea=sea), **options)


@pytest.fixture
def compared(tmp_path) -> list[Compared]:
    first = [segmentation(tmp_path / 'a', 40., 80., 20., tta=41., log=LOG),
             segmentation(tmp_path / 'b', 42., 82., 22., tta=43., log=LOG[:1], seed=1)]
    second = [segmentation(tmp_path / 'c', 50., 71., None, parameters=(500, 1000), log=LOG)]
    third = [segmentation(tmp_path / 'd', 45., 90., 11., tta=46., model__backbone__prompt__num_tokens=5)]
    return [Compared(name, [read_run(run) for run in runs])
            for name, runs in (('two', first), ('one', second), ('other', third))]


def test_a_row_is_the_mean_over_seeds_and_empty_where_one_was_not_measured(compared):
    two, one, other = table(compared)
    assert two == {
        'run': 'two', 'mIoU SS (%)': 41., 'mIoU SS, standard deviation': pytest.approx(2**.5), 'mIoU MS (%)': 42.,
        'mIoU MS, standard deviation': pytest.approx(2**.5), 'trained parameters': 200, 'share (%)': 20.,
        'peak memory (MiB)': 300., 'seconds per iteration': 2.5, 'iterations': 100, 'seeds': 2}
    assert one['mIoU MS (%)'] is None and one['share (%)'] == 50. and one['mIoU SS, standard deviation'] is None
    assert (other['peak memory (MiB)'], other['seconds per iteration']) == (None, None)
    lines = markdown([two, one, other], ['careful']).splitlines()
    assert lines[0].startswith('| run | mIoU SS (%) | mIoU MS (%) | trained parameters |')
    assert lines[2] == '| two | 41.00 ± 1.41 | 42.00 ± 1.41 | 200 | 20.00 | 300.00 | 2.50 | 100 | 2 |'
    assert lines[3] == '| one | 50.00 |  | 500 | 50.00 | 300.00 | 3.00 | 100 | 1 |'
    assert 'Warning: careful.' in lines


def measured_on(run: Path, folder: str, file: str = 'metrics.json', **settings) -> Path:
    """Notes beside the scores of a run that they were measured on other data, as tools/test.py does."""
    cfg = CONFIG.copy()
    cfg.merge_from_dict({'test_dataloader.dataset.data_prefix.img_path': folder, **settings})
    metrics = json.loads((run / file).read_text()) | dict(tested=protocol_of(cfg))
    (run / file).write_text(json.dumps(metrics))
    return run


def test_runs_that_were_tested_on_other_data_are_warned_of(tmp_path):
    one, other = (measured_on(segmentation(tmp_path / name, 40., 1., 1.), folder)
                  for name, folder in (('one', 'images/validation'), ('other', 'images/training')))
    compared = [Compared(run.name, [read_run(run)]) for run in (one, other)]
    assert check(compared) == ['one and other are not alike in test_dataloader.dataset.data_prefix.img_path '
                               '(images/validation and images/training)']
    measured_on(other, 'images/validation', **{'test_evaluator.output_dir': 'predictions'})  # of no weight
    assert check([compared[0], Compared('other', [read_run(other)])]) == []
    measured_on(other, 'images/validation', **{'model.test_cfg.mode': 'whole'})
    assert 'model.test_cfg.mode (slide and whole)' in check([compared[0], Compared('other', [read_run(other)])])[0]


def test_a_test_of_an_earlier_training_is_no_score_of_the_run(tmp_path):
    """As where a training was started over in its folder, with other settings, and was not tested again."""
    run = segmentation(tmp_path / 'run', 40., 1., 1.)
    checkpoint = torch.load(run / 'last.pth', weights_only=True)
    for written, tested in (('20260102_000000', '20260101_000000'), ('20260101_000000', '20260101_000000')):
        checkpoint['meta']['time'] = written
        torch.save(checkpoint, run / 'last.pth')
        metrics = json.loads((run / 'metrics.json').read_text()) | dict(checkpoint_written=tested)
        (run / 'metrics.json').write_text(json.dumps(metrics))
        if written != tested:
            with pytest.raises(ValueError, match='has been trained anew since it was tested'):
                read_run(run)
    assert read_run(run).numbers['mIoU'] == 40.


def test_runs_of_which_one_rounds_to_tf32_are_no_seeds_of_one_run(tmp_path):
    runs = [read_run(segmentation(tmp_path / str(seed), 40., 1., 1., seed=seed, **options)) for seed, options in
            enumerate(({}, dict(env_cfg__cudnn_benchmark=False), dict(env_cfg__tf32=True)))]
    assert check([Compared('a', runs[:2]), Compared('b', runs[2:])]) == []
    with pytest.raises(ValueError, match=r'differ in env_cfg.tf32 \(None and True\)'):
        check([Compared('a', runs), Compared('b', runs[2:])])


def test_tests_of_different_data_are_no_scores_of_one_run(tmp_path):
    run = segmentation(tmp_path / 'run', 40., 1., 1., tta=41.)
    measured_on(measured_on(run, 'images/validation'), 'images/training', 'metrics_tta.json')
    with pytest.raises(ValueError, match=r'metrics\.json and metrics_tta\.json are of different data'):
        read_run(run)
    measured_on(run, 'images/validation', 'metrics_tta.json', **{'test_dataloader.dataset.pipeline': [dict(type='X')]})
    assert read_run(run).settings['tta_pipeline'] == [dict(type='X')]


def test_seeds_that_were_tested_after_other_iterations_are_not_averaged(tmp_path):
    runs = [read_run(segmentation(tmp_path / str(seed), 40., 1., 1., seed=seed, iterations=100 - 50 * seed))
            for seed in (0, 1)]
    with pytest.raises(ValueError, match=r'iterations of the tested checkpoint \(100 and 50\)'):
        check([Compared('two', runs)])
    for name in '01':  # the best checkpoint of each comes when it comes
        (tmp_path / name / 'last.pth').rename(tmp_path / name / 'best_mIoU.pth')
        metrics = json.loads((tmp_path / name / 'metrics.json').read_text()) | dict(checkpoint='best_mIoU.pth')
        (tmp_path / name / 'metrics.json').write_text(json.dumps(metrics))
    assert check([Compared('two', [read_run(tmp_path / name) for name in '01'])]) == []


def test_a_resumed_run_is_a_seed_like_any_other(tmp_path):
    runs = [segmentation(tmp_path / 'whole', 40., 1., 1.),
            segmentation(tmp_path / 'resumed', 40., 1., 1., seed=1, resume=True, load_from='iter_50.pth',
                         default_hooks__checkpoint__interval=7),
            segmentation(tmp_path / 'other', 40., 1., 1., seed=2, resume=True, load_from='iter_50.pth',
                         started_from='ade.pth')]
    found = [read_run(run) for run in runs]
    assert check([Compared('two', found[:2])]) == []
    with pytest.raises(ValueError, match=r'load_from \(None and ade\.pth\)'):
        check([Compared('three', found)])


def test_classes_that_cannot_be_compared_are_said_to_be_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, tta in (('a', 41.), ('b', None)):
        segmentation(tmp_path / name, 40., 1., 1., tta=tta)
    run_tool(monkeypatch, 'compare', 'a', 'b', '--tta')
    assert 'Warning: classes are left out, because not every run was tested with' in capsys.readouterr().out
    assert not (tmp_path / 'compare_classes.csv').exists()
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit, match=r'x\.png cannot be written: '):
        run_tool(monkeypatch, 'compare', 'a', 'b', '--out', 'file/x.png')


def test_classes_are_compared_with_the_first_run(compared):
    assert class_differences(compared) == [
        Difference('sky', 'two', 81., 0.), Difference('sky', 'one', 71., -10.), Difference('sky', 'other', 90., 9.),
        Difference('sea', 'two', 21., 0.), Difference('sea', 'one', None, None), Difference('sea', 'other', 11., -10.)]
    assert class_differences(compared, 'tta/mIoU') == []  # one of them was not tested so


def test_the_largest_differences_are_chosen_by_size_and_sorted_by_gain():
    found = [Difference(name, run, 0., d) for name, differences in dict(
        a=(1., 1.), b=(-9., -5.), c=(3., None), d=(2., 2.5), e=(None, None)).items()
        for run, d in zip(('first', 'one', 'other'), (0., *differences))]
    assert largest(found, 2) == ['c', 'b'] and largest(found, 10) == ['c', 'd', 'a', 'b']


def test_seeds_missing_a_test_leave_no_mean(compared):
    without = compared[0].runs[1]._replace(numbers={'mIoU': 42.})
    half = [Compared('two', [compared[0].runs[0], without]), compared[2]]
    assert table(half)[0]['mIoU MS (%)'] is None and table(half)[0]['mIoU SS (%)'] == 41.
    assert [warning for warning in check(half) if 'metrics_tta.json' in warning] == [
        f'two has no mIoU MS, as {without.folder} has no metrics_tta.json']


def test_runs_that_cannot_simply_be_compared_are_warned_of(compared, tmp_path):
    assert check(compared[:2]) == [] and check([compared[0], compared[2]]) == []  # more prompts are what is compared
    crop = segmentation(tmp_path / 'crop', 40., 1., 1., iterations=50, model__test_cfg__crop_size=(640, 640),
                        train_dataloader__dataset__data_root='/moved/ADEChallengeData2016')
    gpu = segmentation(tmp_path / 'gpu', 40., 1., 1., log=({'memory': 5}, ))
    old = compared[1].runs[0]._replace(parameters=None)
    others = [*(Compared(path.name, [read_run(path)]) for path in (crop, gpu)), Compared('old', [old])]
    assert check([compared[0], *others]) == [
        'two and crop are not alike in iterations of the tested checkpoint (100 and 50), '
        'model.test_cfg.crop_size.0 (512 and 640), model.test_cfg.crop_size.1 (512 and 640)',
        "of two and gpu, the memory of one is a GPU's, of the other that of a process",
        f'{old.folder}/metrics.json does not count parameters: test again with python tools/test.py']


def test_other_kinds_of_runs_and_other_settings_under_one_name_are_refused(compared, tmp_path):
    accuracy = read_run(make_run(tmp_path / 'cls', 'cls_gpt_mae_cub', 70.))
    with pytest.raises(ValueError, match='two has mIoU and birds has accuracy/top1'):
        check([compared[0], Compared('birds', [accuracy])])
    with pytest.raises(ValueError, match=r'are both mixed, but not seeds.*num_tokens \(100 and 5\)'):
        check([Compared('mixed', [compared[0].runs[1], compared[2].runs[0]])])


def test_the_picture_has_a_point_for_each_score_and_each_difference(compared):
    scores, classes = draw_comparison(table(compared), class_differences(compared)).axes
    single, multi = (container.lines[0] for container in scores.containers)
    assert single.get_xydata().tolist() == [[41., 0], [50., 1], [45., 2]]
    assert multi.get_xydata().tolist() == [[42., 0], [46., 2]]
    assert [label.get_text() for label in scores.get_yticklabels()] == ['two', 'one', 'other']
    names = [label.get_text() for label in classes.get_yticklabels()]
    drawn = {line.get_label(): [(names[int(y)], x) for x, y in line.get_xydata()] for line in classes.lines}
    assert drawn['one'] == [('sky', -10.)] and dict(drawn['other']) == dict(sky=9., sea=-10.)
    assert len(draw_comparison(table(compared), []).axes) == 1


def test_the_tool(tmp_path, monkeypatch, capsys):
    seeds = [segmentation(tmp_path / f'shallow/seed_{seed}', 30. + seed, 70., 10., seed=seed) for seed in (0, 1)]
    segmentation(tmp_path / 'gated/seed_0', 38., 75., 25.)
    monkeypatch.chdir(tmp_path)
    run_tool(monkeypatch, 'compare', 'base=' + ','.join(map(str, seeds)), 'gated/seed_0', '--out', 'out/table.svg')
    said = capsys.readouterr().out
    files = [f'out/table{end}' for end in ('.png', '.svg', '.csv', '.json', '.md', '_classes.csv', '_classes.json')]
    assert said.endswith(f'\nwritten: {", ".join(files)}\n') and Path('out/table.md').read_text() in said
    rows, classes = (list(csv.DictReader(Path(f'out/table{end}.csv').read_text().splitlines()))
                     for end in ('', '_classes'))
    assert [(row['run'], row['mIoU SS (%)'], row['seeds']) for row in rows] == [
        ('base', '30.5', '2'), ('seed_0', '38.0', '1')]
    assert [row['difference'] for row in classes] == ['0.0', '5.0', '0.0', '15.0']
    assert json.loads(Path('out/table.json').read_text())['warnings'] == []


def test_names_and_slips(tmp_path, monkeypatch, capsys):
    for name in ('a/seed_0', 'b/seed_0'):
        segmentation(tmp_path / name, 30., 1., 1.)
    monkeypatch.chdir(tmp_path)
    run_tool(monkeypatch, 'compare', 'a/seed_0', 'b/seed_0')
    assert '| a/seed_0 |' in capsys.readouterr().out
    for arguments, wanted in ((('a/seed_0', ), 'two runs or more'), (('x=a/seed_0', 'x=b/seed_0'), 'are called x'),
                              (('a/seed_0', 'a/seed_0'), 'are called'), (('a', 'b', '--classes', '0'), 'not above 0')):
        with pytest.raises(SystemExit):
            run_tool(monkeypatch, 'compare', *arguments)
        assert wanted in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r'nowhere has no metrics\.json'):
        run_tool(monkeypatch, 'compare', 'a/seed_0', 'nowhere')

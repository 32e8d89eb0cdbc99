"""Figures 1, 6, 7 and 8 of runs: what a run is by its settings, how seeds go together, and what is drawn."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run, run_tool
from mmengine.config import Config
from PIL import Image

from mmseg_gpt.analysis.figures import COLOURS, write_figure
from mmseg_gpt.analysis.series import Point, draw_bars, draw_lines
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.finished import read_run
from mmseg_gpt.lab.runs import decisive_settings
from mmseg_gpt.lab.runs.record import write_record
from mmseg_gpt.lab.suite.figures import of_runs, of_suite
from mmseg_gpt.lab.suite.places import prompts_in_all, task_of, vit_of
from mmseg_gpt.lab.suite.plans import PLANS
from mmseg_gpt.lab.suite.search import grid
from mmseg_gpt.models import BiasTunedViT
from mmseg_gpt.recipes import read_experiment
from mmseg_gpt.recipes.methods import METHODS, method_of
from mmseg_gpt.recipes.tasks import TASKS
from mmseg_gpt.recipes.vits import VITS

ROOT = Path(__file__).parents[1]
SEGMENTATION = find_config(str(ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'))


# --- what a run is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('part, names', [('method', METHODS), ('vit', VITS), ('task', TASKS)])
def test_settings_tell_the_parts_of_the_name_of_an_experiment(part, names):
    for name in names:
        wanted = dict(method='gpt', vit='mae', task='cub') | {part: name}
        settings = read_experiment('cls_{method}_{vit}_{task}'.format(**wanted)).to_dict()
        backbone = settings['model']['backbone']
        assert wanted == dict(method=method_of(backbone), vit=vit_of(backbone), task=task_of(settings))


def test_what_has_no_name_among_experiments_is_described():
    assert vit_of(dict(init_cfg=dict(checkpoint='work_dirs/own/mae.pth'))) == 'mae.pth'
    assert vit_of(dict(init_cfg=dict(checkpoint='/elsewhere/mae_pretrain_vit_large.pth'))) == 'mae-l'
    assert method_of(dict(prompt=dict(type='DeepPrompt'), temperature=dict(init=1.))) == 'DeepPrompt and temperatures'
    assert method_of(dict(prompt=None, frozen=False, temperature=True)) == 'full with prompts or temperatures'
    assert method_of(dict(prompt=dict(type='ShallowPrompt'), lora={}, biases=True, adapter={})) == (
        'ShallowPrompt and LoRA and biases and bottlenecks')
    settings = dict(test_dataloader=dict(dataset=dict(type='mmseg.ADE20KDataset', data_root='x')))
    assert task_of(settings) == 'ade20k'
    settings['test_dataloader']['dataset']['type'] = 'BaseSegDataset'
    assert task_of(settings) == 'x'


def test_an_empty_dict_of_temperature_means_temperatures():
    assert method_of(dict(prompt=dict(type='GatedPrompt'), temperature={})) == 'gpt'


def test_options_of_updates_may_be_left_to_their_defaults():
    assert method_of(dict(lora={})) == 'lora' and method_of(dict(adapter={})) == 'adaptformer'
    assert method_of(dict(prompt=dict(type='mmengine.GatedPrompt'), temperature=True, lora=dict(rank=64))) == 'lora-gpt'


@pytest.mark.parametrize('frozen', [{}, dict(frozen=True), dict(frozen=False)])
@pytest.mark.parametrize('kind, method', [('LoRAViT', 'lora'), ('mmengine.BiasTunedViT', 'bias'),
                                          (BiasTunedViT, 'bias')])
def test_older_names_of_the_backbone_show_their_method(kind, method, frozen):
    assert method_of(dict(type=kind, prompt=None, **frozen)) == method


def test_bars_of_other_iterations_or_data_are_said_to_be(tmp_path):
    made = [make_run(tmp_path / 'shallow', 'setr_pup_vpt-shallow_mae_ade20k', 30., iterations=8000),
            make_run(tmp_path / 'gated', 'setr_pup_gpt_mae_ade20k', 38., iterations=160000,
                     test_dataloader__dataset__data_root='data/my_tiny_ade')]
    notes = of_runs(made, 'datasets').notes
    assert notes[0].startswith(f'{made[1]} and {made[0]} are not alike in iterations of the tested checkpoint (8000 ')
    assert notes[1] == 'data/my_tiny_ade is taken for ADE20K, as its dataset has that type'
    assert 'compare them with runs of the same prompts' in notes[2] and len(notes) == 3


def test_segmentation_needs_no_mmpretrain(tmp_path):
    run = make_run(tmp_path / 'run', 'setr_pup_gpt_mae_ade20k', 38.)
    code = ('import sys; sys.modules["mmpretrain"] = sys.modules["torchvision"] = None; from pathlib import Path; '
            'from mmseg_gpt.lab.suite.figures import of_runs; '
            f'print(of_runs([Path({str(run)!r})], "datasets").points[0].y)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == '38.0'


@pytest.mark.parametrize('config, number', [('gpt', 100), ('vpt-deep', 120), ('vpt-deep-24', 24), ('gpt-24', 24)])
def test_prompts_are_counted_over_all_blocks(config, number):
    cfg = find_config(str(ROOT / f'configs/setr_pup_{config}_mae_ade20k.py'))
    assert prompts_in_all(cfg.model.backbone) == number


def test_a_run_is_read(tmp_path):
    log = ({'time': 9., 'memory': 500}, {'time': 1., 'memory': 700}, {'time': 2.}, {'mIoU': 3.})
    run = read_run(make_run(tmp_path / 'run', SEGMENTATION.copy(), 38., seed=7, log=log, tta=39.,
                            per_class=dict(sky=90., sea=None), parameters=(3, 50), iterations=16))
    assert run.settings['model']['decode_head']['num_classes'] == 150
    assert (run.seed, run.iterations, run.parameters) == (7, 16, dict(trained=3, total=50))
    assert run.numbers == {'mIoU': 38., 'tta/mIoU': 39.} and run.score == 'mIoU'
    assert run.per_class == {name: dict(sky=90., sea=None) for name in ('mIoU', 'tta/mIoU')}
    assert (run.seconds, run.memory, run.on_gpu) == (2., 700, True)


def test_memory_is_that_of_our_own_hook_where_it_has_logged(tmp_path):
    run = read_run(make_run(tmp_path / 'run', SEGMENTATION.copy(), 38., log=({'progress/peak_memory_mib': 12.5},)))
    assert (run.memory, run.on_gpu, run.seconds) == (12.5, False, None)
    assert read_run(make_run(tmp_path / 'other', SEGMENTATION.copy(), 38.)).memory is None


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(ValueError, match=r'has no metrics\.json\. Nor has it a checkpoint: python tools/train\.py'):
        read_run(tmp_path)
    folder = make_run(tmp_path / 'run', SEGMENTATION.copy(), 38., tta=39.)
    (folder / 'config.py').touch()
    other = json.loads((folder / 'metrics_tta.json').read_text()) | dict(checkpoint='first.pth')
    (folder / 'metrics_tta.json').write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r'different checkpoints, first\.pth and last\.pth'):
        read_run(folder)
    (folder / 'metrics_tta.json').unlink()
    for damaged in ('{', '[]', '{}'):
        (folder / 'metrics.json').write_text(damaged)
        with pytest.raises(ValueError, match=r'metrics\.json is not what python tools/test\.py wrote.*test again'):
            read_run(folder)
    (folder / 'metrics.json').unlink()
    with pytest.raises(ValueError, match=rf'tools/test\.py {folder}/config\.py {folder}/last\.pth --work-dir {folder}'):
        read_run(folder)
    pretraining = make_run(tmp_path / 'mae', SEGMENTATION.copy(), 38., test_dataloader=None)
    (pretraining / 'metrics.json').unlink()
    with pytest.raises(ValueError, match=r'has no test_dataloader, as that of a pretraining'):
        read_run(pretraining)
    (folder / 'metrics.json').write_text(json.dumps(dict(checkpoint='x/first.pth', mIoU=3.)))
    with pytest.raises(ValueError, match=r'is of first\.pth, which is not there any more'):
        read_run(folder)


# --- runs side by side ------------------------------------------------------------------------------------------------


def rows(found) -> dict[tuple[str, str, str | float], tuple]:
    return {(p.panel, p.series, p.x): (p.y, p.std, p.seeds, p.paper) for p in found.points}


def test_seeds_become_a_mean_and_start_blocks_a_line(tmp_path):
    made = [make_run(tmp_path / f'{block}_{seed}', 'cls_vpt-shallow_mae_cub', 10. * block + 2 * seed, seed,
                     model__backbone__start_block=block) for block, seed in ((0, 0), (0, 1), (11, 1))]
    found = of_runs(made, 'start')
    assert rows(found) == {('CUB', 'MAE VPT-shallow', 1.): (1., pytest.approx(2**.5), 2, None),
                           ('CUB', 'MAE VPT-shallow', 12.): (112., None, 1, None)}
    assert found.notes == []


def test_a_line_whose_runs_differ_in_something_else_is_said_to(tmp_path):
    made = [make_run(tmp_path / str(lr), 'cls_vpt-shallow_mae_cub', 10., model__backbone__start_block=block,
                     optim_wrapper__optimizer__lr=lr, train_dataloader__num_workers=block, custom_hooks=[
                         dict(type='ParameterTableHook'), dict(type='TrackingHook', interval=block)])
            for block, lr in ((0, .1), (1, .2))]
    assert of_runs(made, 'start').notes == [
        f'{made[1]} differs from {made[0]} in optim_wrapper.optimizer.lr (0.1 and 0.2)']


def test_runs_at_one_place_must_be_seeds_of_one_run(tmp_path):
    one, same, other = (make_run(tmp_path / name, 'cls_gpt_mae_cub', 10., seed, optim_wrapper__optimizer__lr=lr)
                        for name, seed, lr in (('one', 0, .1), ('same', 0, .1), ('other', 1, .2)))
    with pytest.raises(ValueError, match=r'one and .*same are both MAE Gated Prompt Tuning CUB with seed 0'):
        of_runs([one, same], 'datasets')
    with pytest.raises(ValueError, match=r'not seeds of one run.*optimizer\.lr \(0\.1 and 0\.2\)'):
        of_runs([one, other], 'datasets')


def test_prompts_in_all_are_on_the_axis_with_the_papers_numbers(tmp_path):
    made = [make_run(tmp_path / name, f'cls_{name}_mae_cars', 60., model__backbone__prompt__num_tokens=number)
            for name, number in (('gpt', 24), ('vpt-deep', 2))]
    assert rows(of_runs(made, 'prompts')) == {
        ('Cars', 'MAE Gated Prompt Tuning', 24.): (60., None, 1, 66.09),
        ('Cars', 'MAE VPT-deep', 24.): (60., None, 1, 57.68)}
    with pytest.raises(ValueError, match='linear has no prompts'):
        of_runs([make_run(tmp_path / 'linear', 'cls_linear_mae_cars', 50.)], 'prompts')


def test_a_group_is_drawn_only_if_all_its_datasets_are_there(tmp_path):
    fgvc = [task for task in TASKS if TASKS[task].group == 'fgvc']
    made = [make_run(tmp_path / task, f'cls_gpt_mocov3_{task}', 10. * i) for i, task in enumerate([*fgvc, 'svhn'])]
    made.append(make_run(tmp_path / 'ade', 'setr_pup_gpt_mocov3_ade20k', 36.))
    own = Config(dict(SEGMENTATION.to_dict()))
    own.test_dataloader.dataset.update(type='BaseSegDataset', data_root='data/own')
    made.append(make_run(tmp_path / 'own', own, 70.))
    assert {(panel, x): y for (panel, _, x), (y, *_) in rows(of_runs(made, 'groups')).items()} == {
        ('MoCo v3', 'FGVC'): 20., ('MoCo v3', 'ADE20K'): 36., ('MAE', 'data/own'): 70.}
    datasets = rows(of_runs(made, 'datasets'))
    assert [x for _, _, x in datasets][:7] == ['CUB', 'Flowers', 'Cars', 'Dogs', 'NABirds', 'SVHN', 'ADE20K']
    assert datasets['MoCo v3', 'Gated Prompt Tuning', 'CUB'] == (0., None, 1, 82.86)
    with pytest.raises(ValueError, match=r'no group of datasets is complete: FGVC is the mean of cub, .*--by datasets'):
        of_runs(made[:4], 'groups')


def test_what_a_suite_has_finished_is_drawn(tmp_path):
    with pytest.raises(ValueError, match=r'nothing of figure1 has finished.*benchmark_suite\.py figure1'):
        of_suite('figure1', tmp_path)
    entries = [e for e in PLANS['figure1']().entries if e.row == ('mae', 'cub')][:3]
    for entry, seed in ((entries[0], 0), (entries[0], 2), (entries[1], 0), (entries[2], 0)):
        run = entry.run.with_seed(seed)
        folder = tmp_path / 'runs' / run.name
        folder.mkdir(parents=True)
        settings = decisive_settings(run) | ({'model.backbone.start_block': 9} if entry is entries[2] else {})
        write_record(folder, dict(status='finished', settings=settings, pretrained=None,
                                  numbers={'accuracy/top1': 10. * int(entry.column) + seed}))
    found = of_suite('figure1', tmp_path)
    assert {x: y[:3] for (panel, _, x), y in rows(found).items() if panel == 'CUB' and y[0] is not None} == {
        1.: (11., pytest.approx(2**.5), 2), 2.: (20., None, 1)}
    assert found.notes == [f'1 runs in {tmp_path / "runs"} have other settings than now, and are not counted']


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_bars_stand_at_their_values_and_the_papers_numbers_are_hollow(tmp_path):
    points = [Point('MAE', series, x, y, std, 2, paper) for series, x, y, std, paper in (
        ('shallow', 'CUB', 40., 1., 42.), ('shallow', 'Cars', 80., 2., None), ('gated', 'CUB', 60., None, 70.),
        ('gated', 'Cars', None, None, 71.), ('gated', 'Dogs', None, None, None))]
    figure = draw_bars(points, 'Title', 'accuracy (%)')
    axis, = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ['CUB', 'Cars']
    assert {(patch.get_height(), round(patch.get_x() + patch.get_width() / 2)) for patch in axis.patches} == {
        (40., 0), (80., 1), (60., 0)}
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == 'white']
    assert sorted(y for line in hollow for y in line.get_ydata()) == [42., 70., 71.]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ['shallow', 'gated', 'in the paper']
    assert legend.get_title().get_text() == 'mean and standard deviation of 2 seeds'
    write_figure(figure, tmp_path / 'bars.png')
    pixels = np.asarray(Image.open(tmp_path / 'bars.png').convert('RGB'))
    blue = (pixels == [int(COLOURS[0][i:i + 2], 16) for i in (1, 3, 5)]).all(axis=2)
    low, high = np.array_split(blue[:, blue.any(axis=0)].sum(axis=0), 2)  # the columns of CUB, then of Cars
    assert np.median(high) / np.median(low) == pytest.approx(2, rel=0.1)


def test_lines_have_what_was_measured_in_order_and_the_papers_numbers_apart():
    points = [Point(panel, 'MAE', x, y, None, 1, paper) for panel, x, y, paper in (
        ('CUB', 3., 30., None), ('CUB', 1., 10., 12.), ('CUB', 2., None, None), ('KITTI', 1., 5., None))]
    figure = draw_lines(points, 'Title', 'block', 'accuracy (%)')
    left, right = figure.axes
    assert left.lines[0].get_xydata().tolist() == [[1., 10.], [3., 30.]] and left.get_title() == 'CUB'
    assert left.lines[-1].get_xydata().tolist() == [[1., 12.]] and left.lines[-1].get_markerfacecolor() == 'none'
    assert [tick.get_text() for tick in left.get_xticklabels()] == ['1', '3'] and right.get_title() == 'KITTI'
    assert figure.legends[0].get_title().get_text() == 'one seed each'


def test_the_tools_write_pictures_and_numbers(tmp_path, monkeypatch, capsys):
    made = [make_run(tmp_path / str(block), 'cls_vpt-shallow_mocov3_cub', 70. + block,
                     model__backbone__start_block=block) for block in (0, 1)]
    out = tmp_path / 'out/start.png'
    run_tool(monkeypatch, 'plot_start_block', *made, '--out', out)
    assert capsys.readouterr().out.startswith(f'written: {out}, {out.with_suffix(".svg")}')
    assert [(p['panel'], p['series'], p['x'], p['y']) for p in csv.DictReader(out.with_suffix('.csv').open())] == [
        ('CUB', 'MoCo v3 VPT-shallow', '1.0', '70.0'), ('CUB', 'MoCo v3 VPT-shallow', '2.0', '71.0')]
    written = json.loads(out.with_suffix('.json').read_text())
    assert f'tools/plot_start_block.py {made[0]} {made[1]} --out' in written['command'] and len(written['rows']) == 2
    assert Image.open(out).size[0] > 500
    with pytest.raises(SystemExit, match='both MoCo v3 VPT-shallow CUB'):
        run_tool(monkeypatch, 'plot_ablation', *made)
    with pytest.raises(SystemExit, match='nothing of figure7 has finished'):
        run_tool(monkeypatch, 'plot_ablation', '--suite', tmp_path, '--by', 'prompts')


def test_a_search_is_drawn_over_a_logarithmic_axis():
    search = grid('cls_gpt_mae_cub', (), (0.05, 5.))
    points = [Point('', 'gate prior 5', float(e.row[0]), 60., None, 1) for e in search.entries]
    assert draw_lines(points, search.title, 'learning rate', 'accuracy (%)', True).axes[0].get_xscale() == 'log'

"""Tables, figures and searches: which runs they are, how these are carried out, and what is written of them."""

import csv
import itertools
import json
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver, get_start_method
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest
import torch
from cls_folders import make_vtab
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmseg_gpt.events import read_events
from mmseg_gpt.lab.runs import (
    Run,
    config_of,
    decisive_settings,
    differing_runs,
    diverged,
    loop,
    outcomes,
    prepare,
    read_record,
    relative_path,
    run_all,
    work,
)
from mmseg_gpt.lab.runs.execute import Attempt
from mmseg_gpt.lab.runs.processes import Process, start_fork, start_server
from mmseg_gpt.lab.runs.progress import RunsDisplay
from mmseg_gpt.lab.runs.record import claim
from mmseg_gpt.lab.suite import (
    count_parameters,
    grid,
    runs_of,
    select,
    total_params,
    with_options,
    write_search,
    write_table,
)
from mmseg_gpt.lab.suite.plans import FGVC, PLANS, VTAB, Table
from mmseg_gpt.lab.suite.printed import PRINTED, TOTAL, printed
from mmseg_gpt.lab.suite.search import COLUMN, best
from mmseg_gpt.lab.suite.tables import Cell, cell_text, column_means, measured, per_task, rows_of
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.recipes import read_experiment
from mmseg_gpt.recipes.tasks import TASKS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def plans() -> dict[str, Table]:
    return {name: plan() for name, plan in PLANS.items()}


# --- the paper's numbers ----------------------------------------------------------------------------------------------


def test_the_average_of_fgvc_is_the_mean_of_its_tasks():
    for table in ('fgvc', 'table7'):
        for numbers in PRINTED[table][1].values():
            assert numbers[-1] == pytest.approx(mean(numbers[-6:-1]), abs=0.0051)


def test_the_average_of_vtab_is_that_of_the_19_tasks_and_not_of_the_groups():
    for _, *groups, average in PRINTED['vtab'][1].values():
        assert average == pytest.approx(sum(n * g for n, g in zip((7, 4, 8), groups)) / 19, abs=0.011)
        assert abs(average - mean(groups)) > 1


@pytest.mark.parametrize('name', PRINTED)
def test_each_printed_number_has_a_place_in_the_plan(name, plans):
    places = set(itertools.product(rows_of(plans[name]), [*plans[name].columns, TOTAL]))
    assert printed(name).keys() <= places
    without = {row for row in rows_of(plans[name]) if plans[name].bars and row[1] == 'gates-only'}  # bars only
    assert {row for row, _ in printed(name)} == set(rows_of(plans[name])) - without


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name, number', dict(
    fgvc=30, vtab=114, ade20k=6, table4=6, table6=6, table7=30, table8=12, figure1=72, figure6=150, figure7=11,
    figure8=150).items())
def test_number_of_runs(name, number, plans):
    entries = plans[name].entries
    assert len(runs_of(entries, [0])) == number and len({run.name for run in runs_of(entries, [0, 1])}) == 2 * number
    assert len({(entry.row, entry.column) for entry in entries}) == len(entries)
    assert {column for columns in plans[name].columns.values() for column in columns} == {e.column for e in entries}


def test_all_runs_have_a_config_and_one_name_means_one_run(plans):
    runs = {run for table in plans.values() for run in runs_of(table.entries, [3])}
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        cfg = config_of(run)
        assert cfg.randomness.seed == 3
        assert cfg.default_hooks.checkpoint.get('adapter_only', False) == (cfg.default_scope == 'mmpretrain')


def test_tables_share_the_runs_that_they_have_in_common(plans):
    names = {name: {run.name for run in runs_of(table.entries, [0])} for name, table in plans.items()}
    assert len(names['table4'] & names['fgvc']) == 4
    assert len(names['table7'] & names['figure7']) == 6
    assert names['figure6'] == names['figure8']
    assert [len(names['figure6'] & names[name]) for name in ('fgvc', 'vtab', 'ade20k')] == [20, 76, 4]


def backbone(plans: dict, table: str, row: tuple[str, ...], column: str) -> tuple[dict, Config]:
    entry, = (e for e in plans[table].entries if e.row == row and e.column == column)
    cfg = config_of(entry.run)
    return cfg.model.backbone, cfg


def test_settings_of_the_variations(plans):
    deep, _ = backbone(plans, 'table8', ('mae-l', 'vpt-deep', '2 x 24'), 'cub')
    assert deep.arch == 'large' and deep.prompt == dict(type='DeepPrompt', num_tokens=2)
    small, _ = backbone(plans, 'table8', ('mocov3-s', 'vpt-deep', '4 x 12'), 'flowers')
    assert small.arch.embed_dims == 384 and small.prompt.num_tokens == 4
    ours, cfg = backbone(plans, 'table8', ('mae-l', 'gpt', '48'), 'flowers')
    assert ours.prompt == dict(type='GatedPrompt', num_tokens=48, gate_init=15.) and ours.temperature is True
    assert cfg.optim_wrapper.optimizer.lr == 0.1  # of MAE on Flowers, Table 5
    hard, _ = backbone(plans, 'table4', ('mae', 'hard-gates', '100'), 'cub')
    assert hard.prompt.type == 'HardGatedPrompt' and hard.prompt.num_tokens == 100
    few, cfg = backbone(plans, 'table7', ('mae', 'gpt', '24'), 'cars')
    assert few.prompt.num_tokens == 24 and cfg.optim_wrapper.optimizer.lr == 0.25
    each_block, _ = backbone(plans, 'figure7', ('mae', 'vpt-deep'), '96')
    assert each_block.prompt == dict(type='DeepPrompt', num_tokens=8)
    assert backbone(plans, 'figure7', ('mae', 'gpt'), '1')[0].prompt.num_tokens == 1


@pytest.mark.parametrize('vit, task, lr', [('mae', 'cub', 0.1), ('supervised', 'cub', 0.1), ('mocov3', 'cub', 1),
                                           ('mae', 'kitti_dist', 0.1), ('mocov3', 'kitti_dist', 0.1)])
def test_figure_1_has_plain_prompts_from_a_block_on(vit, task, lr, plans):
    for column, start in (('1', 0), ('12', 11)):
        vit_cfg, cfg = backbone(plans, 'figure1', (vit, task), column)
        assert vit_cfg.prompt.type == 'ShallowPrompt' and not vit_cfg.get('temperature')
        assert vit_cfg.start_block == start and cfg.optim_wrapper.optimizer.lr == lr


@pytest.mark.parametrize('table, place', [
    ('table8', (('mae-l', 'vpt-deep', '2 x 24'), 'cub')), ('figure1', (('supervised', 'kitti_dist'), '12')),
    ('table4', (('mae', 'hard-gates', '100'), 'cub')), ('figure7', (('mae', 'gpt'), '1')),
    ('table6', (('mocov3', 'vpt-deep', '2 x 12'), 'MIOU (SS)'))])
def test_models_of_plans_can_be_built(table, place, plans):
    parameters = count_parameters(backbone(plans, table, *place)[1])
    assert 0 < parameters.prompts < parameters.trained < parameters.backbone


def test_a_part_of_a_table(plans):
    entries = select(plans['vtab'].entries, ['mae'], ['gpt'], ['structured', 'dtd'])
    assert [entry.task for entry in entries] == ['dtd', *(t for t in VTAB if TASKS[t].group == 'structured')]
    assert {entry.row for entry in entries} == {('mae', 'gpt')}
    with pytest.raises(ValueError, match=r'task cub; known: caltech101, .*specialized'):
        select(plans['vtab'].entries, [], [], ['cub'])
    assert select(plans['ade20k'].entries, [], ['vpt-deep'], [])[0].run.name == 'setr_pup_vpt-deep_mae_ade20k'


def test_the_tools_know_all_tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    assert runpy.run_path(str(ROOT / 'tools/benchmark_suite.py'))['TABLES'] == tuple(PLANS)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('vit', ['mae', 'mocov3'])
@pytest.mark.parametrize('tasks, expected', [(FGVC, '1.02'), (VTAB, '1.01')])
def test_total_params_are_the_papers(tasks, expected, vit):
    counted = [count_parameters(read_experiment(f'cls_gpt_{vit}_{task}')) for task in tasks]
    assert f'{total_params(counted):.2f}' == expected
    classes = [TASKS[task].classes for task in tasks]
    assert [p.heads for p in counted] == [769 * n for n in classes]
    assert all((p.gates, p.adapters) == (11 + 12, 0) and p.trained == p.prompts + p.gates + p.heads for p in counted)
    assert all(p.whole == 85_798_656 + p.trained for p in counted)


def test_total_params_by_hand():
    cub, cars = (count_parameters(read_experiment(f'cls_{method}_mae_cub')) for method in ('gpt', 'linear'))
    vit = 85_798_656 - 197 * 768
    assert (cub.backbone, cub.position, cub.prompts, cub.frozen) == (vit, 197 * 768, 76_800, True)
    assert total_params([cub, cars]) == (vit + 76_800 + 23 + 2 * 153_800) / vit
    assert total_params([cub], position=True) == (85_798_656 + 76_800 + 23 + 153_800) / 85_798_656
    full = count_parameters(read_experiment('cls_full_mae_cub'))
    assert total_params([full] * 3) == 3 * (vit + 153_800) / vit
    assert total_params([full] * 3, position=True) == 3 * (85_798_656 + 153_800) / 85_798_656


def test_updates_are_counted_as_adapters_and_all_of_a_prompt_as_prompts():
    lora = count_parameters(read_experiment('cls_lora_mae_cub'))
    assert (lora.prompts, lora.gates, lora.adapters) == (0, 0, 12 * 4 * (768 + 3 * 768))
    cfg = read_experiment('cls_gpt_mae_cub')
    cfg.model.backbone.prompt = dict(type='FactoredPrompt')
    factored = count_parameters(cfg)
    assert (factored.prompts, factored.gates, factored.adapters) == (10 + 768, 12, 0)


@MODELS.register_module()
class FactoredPrompt(nn.Module):
    """Prompts that are a product, under names of their own."""

    def __init__(self, embed_dims: int, **_: object) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.zeros(10, 1)), nn.Parameter(torch.zeros(1, embed_dims))


def test_only_models_with_our_backbone_are_counted():
    with pytest.raises(ValueError, match='no GatedPromptViT'):
        count_parameters(Config(dict(model=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=3))))


# --- tables -----------------------------------------------------------------------------------------------------------


def finished(value: float) -> dict:
    return dict(status='finished', numbers={'accuracy/top1': value})


def all_but(table: Table, row: tuple[str, ...], seeds: tuple[int, ...], *without: tuple[str, int]) -> dict[str, dict]:
    """Made-up records of one row: 10, 20, ... in the order of tasks, plus the seed."""
    entries = [entry for entry in table.entries if entry.row == row]
    return {entry.run.with_seed(seed).name: finished(10. * i + seed) for i, entry in enumerate(entries, 1)
            for seed in seeds if (entry.task, seed) not in without}


def cells_of(table: Table, records: dict, seeds: tuple[int, ...]) -> dict:
    return column_means(table, measured(table.entries, seeds, records))


def test_an_average_needs_all_its_tasks(plans):
    table, row = plans['fgvc'], ('mae', 'gpt')
    assert cells_of(table, all_but(table, row, (0, )), (0, ))[row, 'AVG'].values == {0: 30.}
    cells = cells_of(table, all_but(table, row, (0, ), ('dogs', 0)), (0, ))
    assert [bool(cell_text(cells[row, column], 1)) for column in ('AVG', 'dogs', 'cub')] == [False, False, True]


def test_an_average_is_of_the_seeds_that_have_all_tasks(plans):
    table, row = plans['fgvc'], ('mocov3', 'vpt-deep')
    cells = cells_of(table, all_but(table, row, (0, 1, 4), ('cub', 1)), (0, 1, 4))
    assert cell_text(cells[row, 'AVG'], 3) == '32.00 ± 2.83 (2 of 3 seeds)'
    assert cell_text(cells[row, 'flowers'], 3) == '21.67 ± 2.08'


def test_group_means_of_vtab(plans):
    table, row = plans['vtab'], ('mae', 'gpt')
    cells = cells_of(table, all_but(table, row, (0, )), (0, ))
    means = [cells[row, column].mean for column in table.columns]
    assert means == [mean(range(10, 71, 10)), mean((80, 90, 100, 110)), mean(range(120, 191, 10)), 100]
    assert list(per_task(table).columns) == list(VTAB) and per_task(plans['fgvc']) is None


def test_cells():
    assert cell_text(None, 2) == cell_text(Cell({}, {}), 2) == ''
    assert cell_text(Cell({}, {0: 'NaN'}), 1) == 'failed'
    assert cell_text(Cell({0: 1., 1: 2.}, {}), 2) == '1.50 ± 0.71'
    assert cell_text(Cell({0: 1.}, {1: 'NaN'}), 2) == '1.00 (1 of 2 seeds)'


def test_written_tables(plans, tmp_path):
    table, row = plans['fgvc'], ('mae', 'gpt')
    records = all_but(table, row, (0, 1))
    records['cls_gpt_mae_cub/seed_1'] = dict(status='failed', reason='stopped at iteration 3: not finite')
    said = write_table('fgvc', table, records, (0, 1), tmp_path / 'fgvc')
    lines = (tmp_path / 'fgvc.md').read_text().splitlines()
    assert said.splitlines() == lines
    assert lines[2] == '| SSL | METHOD |  | TOTAL PARAMS | CUB | FLOWERS | CARS | DOGS | NABIRDS | AVG |'
    ours = '| MAE | Gated Prompt Tuning |'
    place = lines.index(f'{ours} paper | 1.02x | 70.56 | 78.55 | 71.70 | 78.90 | 67.26 | 73.39 |')
    assert lines[place + 1] == (f'{ours} measured | 1.02x | 10.00 (1 of 2 seeds) | 20.50 ± 0.71 | 30.50 ± 0.71 | '
                                '40.50 ± 0.71 | 50.50 ± 0.71 | 30.00 (1 of 2 seeds) |')
    assert '| MoCo v3 | VPT-deep | measured | 1.02x |  |  |  |  |  |  |' in lines
    assert '9 of 60 numbers are measured, 1 failed' in said and 'CUB, seed 1: failed: stopped at iteration 3' in said
    sheet = list(csv.reader((tmp_path / 'fgvc.csv').open()))
    assert ['mae', 'gpt', 'mean', *map(str, (total_of(table, row), 10., 20.5, 30.5, 40.5, 50.5, 30.))] in sheet
    written = json.loads((tmp_path / 'fgvc.json').read_text())
    cub, = (c for c in written['cells'] if (c['SSL'], c['METHOD'], c['column']) == ('mae', 'gpt', 'cub'))
    assert cub['values'] == {'0': 10.} and cub['paper'] == 70.56 and list(cub['failed']) == ['1']


def total_of(table: Table, row: tuple[str, ...]) -> float:
    return total_params([count_parameters(config_of(e.run)) for e in table.entries if e.row == row])


def test_segmentation_tables_have_both_ways_of_testing(plans):
    table = plans['ade20k']
    record = dict(status='finished', numbers={'mIoU': 38., 'tta/mIoU': 39.})
    cells = cells_of(table, {'setr_pup_gpt_mae_ade20k/seed_0': record}, (0, ))
    row = ('mae', 'gpt', '100')
    assert (cells[row, 'MIOU (SS)'].mean, cells[row, 'MIOU (MS)'].mean) == (38., 39.)


def test_figures_are_written_as_points(plans, tmp_path):
    records = {'cls_gpt_mae_cars_prompts_24/seed_0': finished(66.), 'cls_gpt_mae_cars_prompts_1/seed_0': finished(40.)}
    write_table('figure7', plans['figure7'], records, (0, ), tmp_path / 'figure7')
    points = list(csv.DictReader((tmp_path / 'figure7.csv').open()))
    known = {(p['series'], float(p['x'])): (p['y'], p['paper']) for p in points}
    assert len(points) == 11 and known['MAE Gated Prompt Tuning', 24] == ('66.0', '66.09')
    assert known['MAE VPT-deep', 24] == ('', '57.68') and known['MAE Gated Prompt Tuning', 1] == ('40.0', '')
    assert (tmp_path / 'figure7.png').stat().st_size > 5000


def test_bars_of_figure_6_are_means_of_groups_and_those_of_figure_8_of_datasets(plans, tmp_path):
    table, row = plans['figure6'], ('mocov3', 'gates-only')
    entries = [entry for entry in table.entries if entry.row == row]
    records = {entry.run.with_seed(0).name: finished(10. + i) for i, entry in enumerate(entries)
               if entry.task != 'ade20k'}  # VTAB-1K's 7, 4 and 8 tasks, FGVC's 5
    records['setr_pup_gates-only_mocov3_ade20k/seed_0'] = dict(
        status='finished', numbers={'mIoU': 34., 'tta/mIoU': 35.})
    del records[next(entry.run.with_seed(0).name for entry in entries if entry.task == 'dogs')]
    points = {}
    for name in ('figure6', 'figure8'):
        write_table(name, plans[name], records, (0, ), tmp_path / name)
        points[name] = {(p['panel'], p['series'], p['x']): p for p in csv.DictReader((tmp_path / f'{name}.csv').open())}
        assert all((tmp_path / f'{name}.{suffix}').stat().st_size > 5000 for suffix in ('png', 'svg'))
    groups = {x: points['figure6']['MoCo v3', 'VPT-shallow + gates', x] for x in table.columns if x != 'ADE20K'}
    assert {x: p['y'] for x, p in groups.items()} == {
        'VTAB natural': '13.0', 'VTAB specialized': '18.5', 'VTAB structured': '24.5', 'FGVC': ''}
    for name, x, y, paper in (('figure6', 'ADE20K', '34.0', ('34.55', '', '36.81')), ('figure6', 'FGVC', '', (
            '79.26', '', '83.0')), ('figure8', 'Cars', '31.0', ('71.91', '', '79.02')), ('figure8', 'KITTI', '24.0', (
            '', '', '')), ('figure8', 'Dogs', '', ('81.97', '', '83.37'))):
        methods = [points[name]['MoCo v3', method, x] for method in (
            'VPT-shallow', 'VPT-shallow + gates', 'Gated Prompt Tuning')]
        assert methods[1]['y'] == y and tuple(p['paper'] for p in methods) == paper
    assert len(points['figure6']) == 2 * 3 * 5 and len(points['figure8']) == 2 * 3 * 25


# --- carrying out, with tools that only pretend -----------------------------------------------------------------------

TRAIN = """
import json, os, signal, sys
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index('--work-dir') + 1])
with (folder / 'calls').open('a') as calls:
    print('train', '--resume' in arguments, file=calls)
if Path(__file__).with_name('stop').exists():
    sys.exit(143)
if 'optim_wrapper.optimizer.lr=5' in arguments:
    said = 'stopped at iteration 3: not finite: loss\\nImages of this step: unknown'
    with open(os.environ['MMSEG_GPT_EVENTS'], 'a') as events:
        print(json.dumps(dict(event='progress', phase='train', done=2, total=9, loss=None)), file=events)
        print(json.dumps(dict(event='stopped', code='not-finite', message=said)), file=events)
    sys.exit(said)
if 'optim_wrapper.optimizer.lr=6' in arguments:
    sys.exit('Error: out of luck')
if 'optim_wrapper.optimizer.lr=7' in arguments:
    os.kill(os.getpid(), signal.SIGKILL)
if 'optim_wrapper.optimizer.lr=8' in arguments:
    sys.exit()
(folder / 'epoch_2.pth').touch()
(folder / 'last_checkpoint').write_text('elsewhere/epoch_2.pth')
"""
TEST = """
import json, re, sys
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index('--work-dir') + 1])
with (folder / 'calls').open('a') as calls:
    print('test', Path(arguments[1]).name, file=calls)
settings = dict(re.findall(r'(lr|seed)=(\\S+)', ' '.join(arguments)))
numbers = {'accuracy/top1': 100 * float(settings['lr']) + float(settings['seed']), 'checkpoint': 'x'}
(folder / 'metrics.json').write_text(json.dumps(numbers))
"""
CONFIG = """
default_scope = 'mmpretrain'
model = dict(backbone=dict(type='GatedPromptViT', prompt=dict(num_tokens=4, gate_init=5.)), head=dict())
optim_wrapper = dict(optimizer=dict(lr=1.))
default_hooks = dict(checkpoint=dict(interval=1))
train_dataloader = dict(dataset=dict(type='Made'))
test_dataloader = dict(dataset=dict(type='Made'))
val_dataloader = dict(dataset=dict(type='Made', split='val'))
"""


@pytest.fixture
def pretended(tmp_path, monkeypatch) -> Path:
    """A folder with a config and tools that do nothing but note that they were called."""
    (tmp_path / 'tools').mkdir()
    monkeypatch.setattr('mmseg_gpt.resources.TOOLS', tmp_path / 'tools')
    for name, code in (('tools/train.py', TRAIN), ('tools/test.py', TEST), ('made.py', CONFIG)):
        (tmp_path / name).write_text(code)
    return tmp_path


def search_of(folder: Path, *rates: float, **options) -> Table:
    return grid(str(folder / 'made.py'), (), rates, **options)


def calls(folder: Path, run: Run) -> list[str]:
    return (folder / 'runs' / run.name / 'calls').read_text().splitlines()


def test_a_finished_run_is_not_run_again_and_a_failed_one_only_when_asked(pretended, capfd):
    search, home = search_of(pretended, 0.1, 5, 0.5), pretended / 'runs'
    runs = runs_of(search.entries, [0])
    for _ in range(2):
        run_all(runs, home)
    assert [calls(pretended, run) for run in runs] == [
        ['train True', 'test epoch_2.pth'], ['train True'], ['train True', 'test epoch_2.pth']]
    records = outcomes(runs, home)
    assert [records[run.name]['status'] for run in runs] == ['finished', 'failed', 'finished']
    assert records[runs[1].name]['reason'] == 'stopped at iteration 3: not finite: loss'
    assert records[runs[1].name]['code'] == 'not-finite'
    assert records[runs[2].name]['numbers'] == {'accuracy/top1': 50.}
    run_all(runs, home, again=True)
    assert [len(calls(pretended, run)) for run in runs] == [2, 2, 2]
    assert 'runs: 3 of 3 done before' in capfd.readouterr().out


def test_a_stopped_run_ends_the_others_and_is_gone_on_with(pretended):
    search, home = search_of(pretended, 0.1, 0.5), pretended / 'runs'
    first, second = runs_of(search.entries, [0])
    (pretended / 'tools/stop').touch()
    with pytest.raises(KeyboardInterrupt):
        run_all([first, second], home)
    assert not (home / second.name).exists() and outcomes([first], home)[first.name]['status'] == 'started'
    (pretended / 'tools/stop').unlink()
    run_all([first, second], home)
    assert calls(pretended, first) == ['train True', 'train True', 'test epoch_2.pth']
    assert len(outcomes([first, second], home)) == 2


def test_runs_of_other_settings_are_neither_counted_nor_overwritten_unless_asked(pretended):
    home = pretended / 'runs'
    run, = runs_of(search_of(pretended, 0.1).entries, [0])
    run_all([run], home)
    rewrite(pretended / 'made.py', 'interval=1', 'interval=7')
    assert outcomes([run], home) == {} and list(differing_runs([run], home)) == [run]
    with pytest.raises(SystemExit, match=r'default_hooks\.checkpoint\.interval was 1 and is 7(.|\n)*--overwrite'):
        prepare([run], home)
    with claim(home / run.name), pytest.raises(SystemExit, match='another process is carrying it out'):
        prepare([run], home, overwrite=True)
    assert (home / run.name / 'run.json').exists()
    prepare([run], home, overwrite=True)
    assert [path.name for path in (home / run.name).iterdir()] == ['run.lock']
    (home / run.name / 'last_checkpoint').touch()
    with pytest.raises(SystemExit, match=r'it has no run\.json'):
        prepare([run], home)


def rewrite(path: Path, old: str, new: str) -> None:
    """Edits a config, as between two starts of a tool."""
    path.write_text(path.read_text().replace(old, new))
    decisive_settings.cache_clear()


def test_what_makes_a_run_another_one(pretended):
    home, run = pretended / 'runs', runs_of(search_of(pretended, 0.1).entries, [0])[0]
    (pretended / 'vit.pth').write_text('one')
    rewrite(pretended / 'made.py', 'num_tokens=4', f'num_tokens=4), init_cfg=dict(checkpoint="{pretended}/vit.pth"')
    run_all([run], home)

    def another(*settings: str) -> bool:
        return bool(differing_runs([run._replace(settings=(*run.settings, *settings))], home))

    assert not another() and another('load_from=vit.pth') and another('model.backbone.prompt.num_tokens=5')
    assert not another('work_dir=elsewhere', 'log_level=ERROR')
    rewrite(pretended / 'made.py', "dataset=dict(type='Made')", "num_workers=3, dataset=dict(type='Made')")
    assert not another()
    before = (pretended / 'vit.pth').stat()
    (pretended / 'other.pth').write_text('two')  # as long and as old as the one that it replaces
    os.utime(pretended / 'other.pth', ns=(before.st_atime_ns, before.st_mtime_ns))
    (pretended / 'other.pth').replace(pretended / 'vit.pth')
    assert 'pretrained file had the SHA-256' in differing_runs([run], home)[run]
    (pretended / 'vit.pth').unlink()
    assert not another()  # where it is not, results can still be looked at


def test_a_failed_run_is_given_one_more_chance_by_several_processes(pretended, monkeypatch):
    home, runs = pretended / 'runs', runs_of(search_of(pretended, 5).entries, [0])
    run_all(runs, home)
    before = outcomes(runs, home)
    run_all(runs, home, again=True)
    monkeypatch.setattr('mmseg_gpt.lab.runs.loop.outcomes', lambda *_: before)  # a process that began before
    run_all(runs, home, again=True)
    assert calls(pretended, runs[0]) == ['train True'] * 2


def test_a_damaged_record_is_named(pretended):
    home, runs = pretended / 'runs', runs_of(search_of(pretended, 0.1).entries, [0])
    (home / runs[0].name).mkdir(parents=True)
    (home / runs[0].name / 'run.json').write_text('{')
    with pytest.raises(SystemExit, match=r'run\.json is damaged(.|\n)*remove'):
        outcomes(runs, home)


def test_numbers_keep_their_digits(pretended):
    search = search_of(pretended, 0.12345671, 0.12345672, 5.)
    assert [entry.row[0] for entry in search.entries] == ['0.12345671', '0.12345672', '5']
    assert config_of(search.entries[1].run).optim_wrapper.optimizer.lr == 0.12345672


def test_options_that_a_tool_would_refuse_are_refused_when_runs_are_listed(tmp_path):
    table = with_options(PLANS['ade20k'](), (), ['--authors-protocol'])
    with pytest.raises(SystemExit, match='for classification only'):
        work(runs_of(table.entries, [0]), tmp_path, str, dry_run=True)


def test_missing_files_are_said_once_before_anything_starts(pretended):
    settings = ('model.backbone.init_cfg.checkpoint=absent.pth', 'test_dataloader.dataset.data_prefix=no_images')
    search, home = grid(str(pretended / 'made.py'), settings, (0.1, 0.5)), pretended / 'runs'
    runs = runs_of(search.entries, [0, 1])
    with pytest.raises(SystemExit) as error:
        prepare(runs, home)
    assert str(error.value).count('absent.pth\n') == 2  # what, and where to put it
    run_all(runs, home)
    prepare(runs, home)  # what is done needs no files any more


def test_a_run_is_left_to_the_process_that_has_it(pretended, capfd):
    home, (run, ) = pretended / 'runs', runs_of(search_of(pretended, 0.1).entries, [0])
    with claim(home / run.name) as lock:
        assert lock is not None
        run_all([run], home)
    assert 'another process is running it' in capfd.readouterr().out and not outcomes([run], home)
    run_all([run], home)
    assert outcomes([run], home)[run.name]['status'] == 'finished'


def test_what_a_tool_does_with_runs(pretended, capfd, monkeypatch):
    home, runs = pretended / 'runs', runs_of(search_of(pretended, 0.1).entries, [0])
    done = []
    monkeypatch.setattr('mmseg_gpt.lab.runs.series.run_all', lambda *_, **__: done.append('run'))
    for options in (dict(dry_run=True), dict(report_only=True), dict()):
        work(runs, home, lambda: done.append('write') or 'the table', **options)
        done.append('')
    assert done == ['', 'write', '', 'run', 'write', '']
    assert f'$ python {relative_path(pretended / "tools/train.py")}' in capfd.readouterr().out

    def stop(*_, **__) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('mmseg_gpt.lab.runs.series.run_all', stop)
    with pytest.raises(SystemExit, match='the same command goes on'):
        work(runs, home, lambda: 'the table')
    assert 'the table' in capfd.readouterr().out


# --- search -----------------------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_and_never_the_test_images(pretended):
    search = search_of(pretended, 0.1, 5., gates=(1., 10.), prompts=(2, 4, 8))
    assert [entry.row for entry in search.entries] == [
        (lr, gate, n) for lr in ('0.1', '5') for gate in ('1', '10') for n in ('2', '4', '8')]
    for entry in search.entries:
        cfg = config_of(entry.run)
        assert entry.run.options == ('--search-split', ) and cfg.test_dataloader == cfg.val_dataloader
        lr, gate, n = map(float, entry.row)
        assert cfg.optim_wrapper.optimizer.lr == lr and cfg.default_hooks.checkpoint.adapter_only
        assert (cfg.model.backbone.prompt.gate_init, cfg.model.backbone.prompt.num_tokens) == (gate, n)


def test_a_grid_searches_only_what_there_is():
    search = grid('cls_vpt-shallow_mae_cub', (), (0.1, ))
    assert search.entries[0].row == ('0.1', '', '100')
    with pytest.raises(ValueError, match='no gate prior to search'):
        grid('cls_vpt-shallow_mae_cub', (), (0.1, ), gates=(1, ))
    with pytest.raises(ValueError, match='no prompts to search'):
        grid('cls_linear_mae_cub', (), (0.1, ), prompts=(1, ))
    full = grid('cls_full_mae_cub', (), (0.1, )).entries[0].run
    assert 'adapter_only' not in ' '.join(full.settings)


def test_a_config_without_validation_images_is_refused(pretended):
    (pretended / 'made.py').write_text(CONFIG.replace(", split='val'", ', pipeline=[1]'))
    for config in ('configs/setr_pup_gpt_mae_ade20k.py', str(pretended / 'made.py')):
        with pytest.raises(SystemExit, match='--search-split: it has no validation images beside the test images'):
            grid(config, (), (0.1, ))


def test_the_best_point_has_a_value_for_every_seed(pretended, tmp_path):
    search = search_of(pretended, 0.1, 0.5, 5)
    place = {row: (row, COLUMN) for row in rows_of(search)}
    low, middle, high = place
    cells = {place[low]: Cell({0: 60., 1: 62.}, {}), place[middle]: Cell({0: 61., 1: 63.}, {}),
             place[high]: Cell({0: 99.}, {1: 'NaN'})}
    assert best(cells, (0, 1)) == middle
    assert best({place[high]: cells[place[high]]}, (0, 1)) is None
    records = {entry.run.with_seed(seed).name: finished(cells[place[entry.row]].values[seed])
               for entry in search.entries for seed in cells[place[entry.row]].values}
    said = write_search(search, records, (0, 1), tmp_path / 'search')
    assert '| **0.5** | **5** | **4** | **62.00 ± 1.41** |' in said and '| 5 | 5 | 4 | 99.00 (1 of 2 seeds) |' in said
    assert '1 of 6 runs are not done yet' in said and 'Best so far' in said
    assert 'optim_wrapper.optimizer.lr=0.5 model.backbone.prompt.gate_init=5' in said
    assert json.loads((tmp_path / 'search.json').read_text())['best']['learning rate'] == '0.5'
    assert list(csv.reader((tmp_path / 'search.csv').open()))[2] == [
        '0.5', '5', '4', '62.0', repr(2**0.5), '2', '0']


# --- the real thing, small --------------------------------------------------------------------------------------------


def tiny_task(folder: Path) -> Path:
    """Writes images of a task of VTAB-1K but for those to test on, a ViT of width 24, and a config of 2 epochs."""
    make_vtab(folder / 'data')
    shutil.rmtree(folder / 'data/images/test')
    (folder / 'data/test.txt').unlink()
    cfg = read_experiment('cls_gpt_mae_clevr_count')
    backbone = cfg.model.backbone
    backbone.update(arch=dict(embed_dims=24, num_layers=3, num_heads=2, mlp_ratio=2), img_size=32)
    backbone.init_cfg.checkpoint = str(folder / 'vit.pth')
    torch.save(GatedPromptViT(arch=backbone.arch, img_size=32, out_type='mean_all').state_dict(), folder / 'vit.pth')
    cfg.model.head.in_channels = 24
    for loader, number in ((cfg.train_dataloader, 24), (cfg.test_dataloader, 6)):
        loader.update(batch_size=8, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(folder / 'data'), num_images=number)
        loader.dataset.pipeline[1].scale = (32, 32)
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler = []
    cfg.dump(folder / 'tiny.py')
    return folder / 'tiny.py'


@pytest.mark.slow
def test_a_real_search(tmp_path, monkeypatch, capfd):
    config = tiny_task(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.setenv('PYTHONPATH', str(ROOT), prepend=os.pathsep)
    monkeypatch.setattr(sys, 'argv', ['search.py', str(config), '--lr', '0.1', '1e30', '--out', 'found'])
    search = runpy.run_path(str(ROOT / 'tools/search.py'))
    for _ in range(2):
        with pytest.raises(SystemExit, match='1 of 2 runs failed'):
            search['main']()
    said = capfd.readouterr().out
    assert said.count('    $ python') == 3 and 'runs: 2 of 2 done before' in said
    result = json.loads(Path('found/search.json').read_text())
    good, bad = result['points']
    assert good['learning rate'] == '0.1' and 0 <= good['values']['0'] <= 100 and not good['failed']
    assert bad['values'] == {} and bad['failed']['0'].startswith('stopped at iteration')
    assert result['best']['learning rate'] == '0.1' and Path('found/search.png').stat().st_size > 5000
    folder = Path('found/runs/lr_0.1_gate_15_prompts_1/seed_0')
    checkpoint = torch.load(folder / 'epoch_2.pth', weights_only=True)
    assert sorted(checkpoint['state_dict']) == ['backbone.prompt.gate_prior', 'backbone.prompt.tokens',
                                                'backbone.temperature', 'head.fc.bias', 'head.fc.weight']
    log = (folder / 'log.txt').read_text()
    assert 'val200' in log and 'images/test' not in log


# --- several at once --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick_server(monkeypatch) -> None:
    """Lets the process of which forks are made import no more than it needs for scripts that only pretend."""
    monkeypatch.setattr('mmseg_gpt.lab.runs.processes.IMPORTED', ('mmseg_gpt.lab.runs', ))


SCRIPT = """
import json, multiprocessing, os, sys, time
print('output of', sys.argv[1:], flush=True)
print('warning', file=sys.stderr)
with open(os.environ['MMSEG_GPT_EVENTS'], 'a') as events:
    print(json.dumps(dict(event='metrics', of=sys.argv[1:])), file=events)
while 'go' in sys.argv and not os.path.exists('go'): time.sleep(0.05)
if 'fail' in sys.argv: sys.exit('it went wrong')
if 'refuse' in sys.argv:
    message = 'These options are wrong:\\n\\n  * a: is no key\\n  * b: is no key'
    with open(os.environ['MMSEG_GPT_EVENTS'], 'a') as events:
        print(json.dumps(dict(event='stopped', code='refused', message=message)), file=events)
    sys.exit(message)
if 'wait' in sys.argv: time.sleep(60)
from beside import VALUE
print(VALUE, multiprocessing.get_start_method())
"""


@pytest.fixture
def script(tmp_path) -> str:
    (tmp_path / 'beside.py').write_text('VALUE = "from beside the script"')
    (tmp_path / 'script.py').write_text(SCRIPT)
    return str(tmp_path / 'script.py')


def test_a_fork_is_the_script_that_it_runs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log, events = tmp_path / 'log.txt', tmp_path / 'events.jsonl'
    log.write_text('before\n')
    start_server(1)
    for arguments, status in ((['one', 'go'], 0), (['go', 'fail'], 1)):
        with claim(tmp_path) as lock:
            process = start_fork(['python', script, *arguments], log, events, lock)
        assert claim(tmp_path) is None  # the fork holds it as well
        (tmp_path / 'go').touch()
        wait_for(process)
        (tmp_path / 'go').unlink()
        claim(tmp_path).close()
        assert process.poll() == status
    assert log.read_text().splitlines() == [
        'before', "output of ['one', 'go']", 'warning', f'from beside the script {get_start_method()}',
        "output of ['go', 'fail']", 'warning', 'it went wrong']
    assert read_events(events)[0] == [dict(event='metrics', of=['one', 'go']), dict(event='metrics', of=['go', 'fail'])]
    assert 'beside' not in sys.modules and sys.argv[0] != script


def wait_for(process: Process) -> None:
    while process.poll() is None:
        time.sleep(0.05)


class Waiting(NamedTuple):
    """A run that reports that it has begun, and waits."""
    name: str
    script: str
    title = 'waiting'
    seconds = None

    def identity(self) -> dict:
        return dict(settings={}, pretrained=None)

    def commands(self, folder: Path) -> Iterator[list[str]]:
        yield ['python', self.script, 'wait']


@pytest.mark.parametrize('forked', [False, True])
def test_commands_end_with_what_waits_for_them_and_runs_are_left_to_be_gone_on_with(
        script, tmp_path, monkeypatch, forked):
    """As Ctrl-C does: here it comes when both have reported something."""
    started, attempts = set(), []

    def show(self, run: Waiting, event: dict) -> None:
        started.update({run} if event['event'] == 'metrics' else ())
        if len(started) == 2:
            raise KeyboardInterrupt

    def stop(active: list[Attempt]) -> None:
        attempts.extend(active)
        stop_all(active)

    stop_all = loop.stop
    monkeypatch.setattr(RunsDisplay, 'show', show)
    monkeypatch.setattr(loop, 'stop', stop)
    runs = [Waiting(name, script) for name in ('a', 'b', 'c')]
    with pytest.raises(KeyboardInterrupt):
        run_all(runs, tmp_path, jobs=2, forked=forked)
    assert [attempt.process.poll() for attempt in attempts] == [-signal.SIGTERM] * 2
    assert [read_record(tmp_path / run.name).get('status') for run in runs] == ['started', 'started', None]
    for run in runs:
        claim(tmp_path / run.name).close()


class Passing(Waiting):
    """A run of the script with one argument."""

    def commands(self, folder: Path) -> Iterator[list[str]]:
        yield ['python', self.script, self.name]

    def numbers(self, folder: Path) -> dict[str, float]:
        return {}


def test_imports_that_fail_for_all_are_left_to_each_command(script, tmp_path, monkeypatch, capfd):
    (tmp_path / 'broken_module.py').write_text('raise RuntimeError("out of luck")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr('mmseg_gpt.lab.runs.processes.IMPORTED', ('broken_module', ))
    server = forkserver.ForkServer()  # not the one of other tests, which has imported what it needs
    for name in ('ensure_running', 'connect_to_new_process', 'set_forkserver_preload'):
        monkeypatch.setattr(forkserver, name, getattr(server, name))
    runs = [Passing(name, script) for name in ('a', 'b')]
    run_all(runs, tmp_path / 'runs', jobs=2, forked=True)
    assert [outcomes(runs, tmp_path / 'runs')[run.name]['status'] for run in runs] == ['finished', 'finished']
    said = capfd.readouterr()
    assert 'each imports for itself' in said.out and 'RuntimeError: out of luck' in said.err


def test_the_reason_of_a_refused_run_says_what_was_wrong(script, tmp_path):
    run = Passing('refuse', script)
    run_all([run], tmp_path)
    record = read_record(tmp_path / 'refuse')
    assert (record['code'], record['reason']) == ('refused', 'These options are wrong: a: is no key (and 1 more)')


def test_one_after_the_other_or_two_at_once_gives_the_same_records(pretended):
    runs = runs_of(search_of(pretended, 0.1, 5, 6, 7, 8).entries, [0])
    ways = dict(serial={}, two=dict(jobs=2), forks=dict(jobs=2, forked=True))
    found = {}
    for name, options in ways.items():
        run_all(runs, pretended / name, **options)
        records = outcomes(runs, pretended / name)
        told = json.dumps([dict(records[run.name], seconds=0) for run in runs])
        for path in (str(pretended / name), relative_path(pretended / name)):
            told = told.replace(path, 'HOME')
        found[name] = json.loads(told)
    assert found['serial'] == found['two'] == found['forks']
    assert [(record.get('code'), record.get('reason')) for record in found['serial'][:4]] == [
        (None, None), ('not-finite', 'stopped at iteration 3: not finite: loss'), ('crashed', 'Error: out of luck'),
        ('killed', 'ended by signal 9 (Killed)')]
    assert found['serial'][4]['code'] == 'incomplete' and 'no checkpoint' in found['serial'][4]['reason']
    assert [diverged(record) for record in found['serial']] == [False, True, False, False, False]


def test_records_without_a_code_tell_by_their_reason_whether_a_run_diverged():
    assert diverged(dict(status='failed', reason='stopped at iteration 7: the loss is nan'))
    assert not diverged(dict(status='failed', reason='no space left on device'))
    assert not diverged(dict(status='failed', code='nothing-labelled', reason='stopped at iteration 7: no label'))
    assert not diverged(dict(status='started')) and not diverged({})

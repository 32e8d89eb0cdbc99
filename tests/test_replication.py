"""The paper in miniature: its data, its plan, its claims, its report, and a tiny one from beginning to end."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import pytest
from mmengine.registry import MODELS, DefaultScope

from mmseg_gpt.lab.miniature.carry_out import check_complete, draw, replicate
from mmseg_gpt.lab.miniature.claims import (
    FAILS,
    HOLDS,
    MULTI_SCALE_COLUMN,
    NOISE,
    SINGLE_SCALE_COLUMN,
    claims_of,
    compare,
    gate_comparisons,
    later_blocks,
    selected_blocks,
)
from mmseg_gpt.lab.miniature.data import draw_datasets
from mmseg_gpt.lab.miniature.drawing import BREEDS, CLASSIFIED, DISTANCES, PRETRAINING, draw_breed, draw_small_scene
from mmseg_gpt.lab.miniature.plan import (
    FULL,
    GATE_TASKS,
    GATES,
    GPT,
    METHODS,
    PAPER,
    QUICK,
    SGD_HEAD,
    TASKS,
    VITS,
    Adaptation,
    Plan,
    Rates,
)
from mmseg_gpt.lab.miniature.report import (
    BEGIN,
    END,
    PAGE,
    PUBLISHED,
    as_csv,
    conditions,
    markdown,
    page_part,
    publish,
)
from mmseg_gpt.lab.miniature.results import about
from mmseg_gpt.lab.miniature.tables import tables_of
from mmseg_gpt.lab.runs import config_of, decisive_settings
from mmseg_gpt.lab.suite.plans import runs_in

ROOT = Path(__file__).parents[1]


# --- data -------------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_image_and_another_another():
    for names, draw_one in CLASSIFIED.values():
        first, again, other = (draw_one(np.random.default_rng(seed), names[0], 48) for seed in (3, 3, 4))
        assert first.shape == (48, 48, 3) and first.dtype == np.uint8
        assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_scenes_have_labels_of_their_nine_classes():
    drawn = [draw_small_scene(np.random.default_rng(seed), 48)[1] for seed in range(60)]
    assert {label.shape for label in drawn} == {(48, 48)}
    assert set(np.unique(drawn)) == set(range(10))


def test_hue_and_coat_of_a_breed_are_in_its_pixels():
    def middle(name: str) -> np.ndarray:
        drawn = [draw_breed(np.random.default_rng(seed), name, 48)[18:36, 14:34] for seed in range(40)]
        return np.mean(drawn, axis=(0, 1, 2))

    for i, hue in enumerate(('red', 'green', 'blue')):
        assert middle(f'{hue}_few_light').argmax() == i
    assert middle('red_few_light').mean() > middle('red_few_dark').mean() + 20


def test_a_nearer_house_covers_more_of_the_image():
    from mmseg_gpt.lab.miniature import drawing
    seen = []

    def sizes(rng, layers):
        seen.append(np.mean([layer.mask.mean() for layer in layers if layer.label == drawing.LABELS['house']]))
        return np.zeros((1, 1, 3)), None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, 'render', sizes)
        for name in DISTANCES:
            for seed in range(10):
                drawing.draw_distance(np.random.default_rng(seed), name, 48)
    by_class = np.reshape(seen, (len(DISTANCES), 10))
    assert (np.diff(by_class.mean(axis=1)) < 0).all()


def test_datasets_are_drawn_once_and_shared_out_among_the_classes(tmp_path):
    counts = dict(scenes=dict(train=2, test=1), breeds=dict(train=24), pretraining=dict(train=3), distances=dict(val=5))
    assert draw_datasets(tmp_path / 'data', counts, processes=1)
    files = [path.relative_to(tmp_path / 'data') for path in (tmp_path / 'data').rglob('*.png')]
    assert len(files) == 2 * 3 + 24 + 3 + 5
    for name in BREEDS:
        assert sum(file.parts[:3] == ('breeds', 'train', name) for file in files) == 2
    label = cv2.imread(str(tmp_path / 'data/scenes/annotations/test/00000.png'), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(tmp_path / 'data/scenes/images/test/00000.png'))
    assert label.shape == (48, 48) and image.shape == (48, 48, 3)
    assert not draw_datasets(tmp_path / 'data', counts, processes=1)
    assert draw_datasets(tmp_path / 'data', counts | dict(breeds=dict(train=12)), processes=1)


def test_images_of_the_splits_differ(tmp_path):
    draw_datasets(tmp_path, dict(breeds=dict(train=1, val=1, test=1)), processes=1)
    images = [cv2.imread(str(path)) for path in tmp_path.rglob('*.png')]
    assert len(images) == 3 and not any(np.array_equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


# --- plan -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def plan(tmp_path_factory) -> Plan:
    plan = Plan(FULL, tmp_path_factory.mktemp('replicate'))
    plan.write_configs()
    return plan


def chosen_everywhere(plan: Plan) -> dict[Adaptation, Rates]:
    return {cell: Rates(0.1) if cell.method == 'linear' else Rates(0.1, 0.01)
            for cell in [*plan.cells(), *plan.gate_cells()]}


# What parts of a method train.
TRAINED = dict(prompt=r'prompt\.(?!gate_prior).+', gates=r'prompt\.gate_prior', temperature='temperature',
               lora=r'blocks\.\d+\.attn\.qkv\.lora_[ab]', biases=r'.*\.bias',
               adapter=r'blocks\.\d+\.mlp\.adapter\.(down|up)\..+')


def trained_by(method: str) -> str:
    """Returns a pattern of the names that a method trains."""
    row = METHODS[method]
    return '|'.join(names for part, names in TRAINED.items() if getattr(row, part)) if row.frozen else '.*'


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_what_its_name_says_and_the_head(plan, method, task):
    cfg = config_of(plan.run(Adaptation(task, 'mocov3', method), Rates(0.1, None if method == 'linear' else 0.01)))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for name, parameter in model.named_parameters():
        inside = name.startswith('backbone.')
        expected = re.fullmatch(trained_by(method), name.removeprefix('backbone.')) if inside else True
        assert parameter.requires_grad == bool(expected), name
    assert cfg.model.backbone.init_cfg.checkpoint == str(plan.runs / 'pretrain_mocov3/vit.pth')
    if task != 'scenes':
        assert cfg.model.backbone.out_type == 'cls_token'
    prompt = getattr(model.backbone, 'prompt', None)
    if prompt is not None:
        assert prompt.tokens.numel() == 12 * 64  # VPT-deep: one in each of 12 blocks


def test_all_methods_have_the_same_data_and_budget(plan):
    for task in TASKS:
        kept = []
        for cell in plan.cells():
            if cell.task == task and cell.method != 'linear':
                settings = decisive_settings(plan.run(cell, Rates(0.1, 0.01)))
                kept.append({key: value for key, value in settings.items() if not key.startswith('model.backbone')})
        assert len(kept) == len(VITS) * (len(METHODS) - 1) and all(each == kept[0] for each in kept)


def test_a_search_sees_validation_images_only_and_results_have_other_seeds(plan):
    for task in TASKS:
        cell = Adaptation(task, 'mae', 'gpt')
        search, final = plan.search(cell, Rates(0.1, 0.01)), plan.run(cell, Rates(0.1, 0.01)).with_seed(1)
        one, other = config_of(search), config_of(final)
        assert 'test' not in json.dumps(one.test_dataloader.dataset.data_prefix)
        assert 'val' in json.dumps(one.test_dataloader.dataset.data_prefix)
        assert 'test' in json.dumps(other.test_dataloader.dataset.data_prefix)
        assert one.train_dataloader == other.train_dataloader
        assert one.randomness.seed == 0 and other.randomness.seed == 1 and 0 not in FULL.seeds


def test_what_is_in_the_vit_has_the_searched_rate_and_the_head_its_own(plan):
    from mmengine.optim import build_optim_wrapper
    cfg = config_of(plan.run(Adaptation('breeds', 'mae', 'gpt'), Rates(0.1, 0.01)))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(p): group['lr'] for group in groups for p in group['params']}
    assert {name: pytest.approx(rates[id(p)]) for name, p in model.named_parameters() if p.requires_grad} == {
        'backbone.temperature': 0.01, 'backbone.prompt.tokens': 0.01, 'backbone.prompt.gate_prior': 0.01,
        'head.fc.weight': 0.1, 'head.fc.bias': 0.1}


@pytest.mark.parametrize('name', GATES)
def test_variants_of_the_gates_differ_in_what_they_are_called_by(plan, name):
    from mmengine.optim import build_optim_wrapper
    gates = GATES[name]
    rates = Rates(SGD_HEAD, gates.sgd) if gates.sgd else Rates(0.1, 0.01)
    cfg = config_of(plan.run(Adaptation('scenes', 'mae', name), rates))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    found = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    prompt = model.backbone.prompt
    assert set(prompt.gate_prior.tolist()) == {float(re.match(r'prior (-?\d+)', name)[1])}
    assert type(optimizer).__name__ == ('SGD' if 'SGD' in name else 'AdamW')
    base = float(re.search(r'SGD at ([\d.]+)', name)[1]) if 'SGD' in name else 0.01
    times = 0 if 'not trained' in name else 10 if '10 x' in name else 1
    assert found[id(model.decode_head.conv_seg.weight)] == pytest.approx(0.1)
    assert found[id(prompt.tokens)] == pytest.approx(base)
    assert found[id(prompt.gate_prior)] == pytest.approx(times * base)


def test_the_rate_with_the_best_validation_is_chosen_when_all_have_ended(plan):
    cell = Adaptation('scenes', 'mae', 'linear')
    runs = plan.searches({})[cell]
    records = {run.name: dict(status='finished', numbers={'aAcc': 90., 'mIoU': value})
               for run, value in zip(runs.values(), (50., 70., 60., 65., 64.))}
    assert plan.choose(records, {})[cell] == Rates(FULL.heads[1])
    *_, last = runs.values()
    assert cell not in plan.choose({name: r for name, r in records.items() if name != last.name}, {})
    best = runs[Rates(FULL.heads[1])].name
    records[best] = dict(status='failed', reason='stopped at iteration 7: the loss is nan')
    assert plan.choose(records, {})[cell] == Rates(FULL.heads[3])
    records[best] = dict(status='failed', reason='no space left on device')
    assert cell not in plan.choose(records, {})


def test_nothing_is_searched_before_the_rate_of_its_head_is_known(plan):
    assert {cell.method for cell, runs in plan.searches({}).items() if runs} == {'linear'}
    chosen = {Adaptation('breeds', 'mae', 'linear'): Rates(0.02)}
    searched = {cell for cell, runs in plan.searches(chosen).items() if runs and cell.method != 'linear'}
    variants = {name for name, gates in GATES.items() if not gates.sgd}
    assert searched == {Adaptation('breeds', 'mae', method) for method in {*METHODS, *variants} - {'linear'}}
    assert all(rates.head == 0.02 for cell in searched for rates in plan.searches(chosen)[cell])


def test_tables_and_figures_share_their_runs_and_have_names_of_their_own(plan):
    tables = tables_of(plan, chosen_everywhere(plan))
    runs = runs_in(tables.values(), FULL.seeds)
    assert len({run.name for run in runs}) == len(runs)
    assert {run.settings[-1] for run in runs} == {f'randomness.seed={seed}' for seed in FULL.seeds}
    shared = {e.run for e in tables['classification'].entries} & {e.run for e in tables['figure1'].entries}
    assert {run.name for run in shared} == {f'{task}_{vit}_vpt-shallow_lr_0.01'
                                            for task in ('breeds', 'distances') for vit in VITS}
    counts = {(e.row[1], e.column): config_of(e.run).model.backbone.prompt.num_tokens
              for e in tables['figure7'].entries}
    assert counts['gpt', '48'] == 48 and counts['vpt-deep', '48'] == 4  # in each of 12 blocks
    assert {e.run for e in tables['gates'].entries if e.row == (GPT, )} == {
        plan.run(Adaptation(task, 'mae', 'gpt'), Rates(0.1, 0.01)) for task in GATE_TASKS}
    starts = {e.column: config_of(e.run).model.backbone.get('start_block', 0) for e in tables['figure1'].entries}
    assert starts == {str(block): block - 1 for block in FULL.starts}


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('better, worse, verdict', [
    ([70., 71., 72.], [60., 61., 62.], HOLDS), ([60., 61., 62.], [70., 71., 72.], FAILS),
    ([60., 70., 80.], [59., 69., 79.], NOISE), ([5., 5.], [5., 5.], NOISE), ([6., 6.], [5., 5.], NOISE)])
def test_a_difference_counts_where_the_seeds_spread_less(better, worse, verdict):
    found = compare('here', better, worse)
    assert found.verdict == verdict and found.difference == pytest.approx(mean(better) - mean(worse))


def test_p_is_that_of_welchs_test_and_grows_with_what_was_chosen_from():
    # By hand: means 2 and 5, variances 1 and 4, 3 values each: t = -3 / sqrt(5 / 3) with 2.941 degrees of freedom.
    assert compare('', [1., 2., 3.], [3., 5., 7.]).p == pytest.approx(0.10448, abs=1e-5)
    assert compare('', [1., 2., 3.], [3., 5., 7.], 4).p == pytest.approx(0.41792, abs=1e-4)


SCALES = (SINGLE_SCALE_COLUMN, MULTI_SCALE_COLUMN)


def tables_with(**values: float) -> dict:
    """Tables in which every method has 50 but for ``values``, with a spread of 0.1 over three seeds."""
    def cell(value: float) -> dict:
        return {'1': value - 0.1, '2': value, '3': value + 0.1}

    def rows(columns: tuple[str, ...]) -> list[dict]:
        return [dict(name=[vit, method], values={c: cell(values.get(method.replace('-', '_'), 50.)) for c in columns})
                for vit in VITS for method in METHODS]

    return dict(
        segmentation=dict(title='Segmentation', columns=list(SCALES), rows=rows(SCALES)),
        classification=dict(title='Classification', columns=['breeds'], rows=rows(('breeds', ))),
        figure1=dict(title='Figure 1', labels=['SSL', 'TASK'], columns=['1', '3', '5'], x='block', panels='TASK', rows=[
            dict(name=['mae', 'breeds'], values={'1': cell(40.), '3': cell(45.), '5': cell(42.)}),
            dict(name=['mocov3', 'breeds'], values={'1': cell(46.), '3': cell(45.), '5': cell(42.)})]),
        figure7=dict(title='Figure 7', labels=['SSL', 'METHOD'], columns=['12', '24'], x='prompts', panels='', rows=[
            dict(name=['mae', 'gpt'], values={'12': cell(60.), '24': cell(61.)}),
            dict(name=['mae', 'vpt-deep'], values={'24': cell(55.)})]),
        gates=dict(title='Gates', labels=['GATES'], columns=['breeds'], x='', panels='', rows=[
            dict(name=[name], values={'breeds': cell(value)}) for name, value in (
                (GPT, 50.), ('prior 0', 51.), ('prior 10', 50.), ('prior -10', 49.), (PAPER, 40.),
                ('prior 0, SGD at 0.1', 45.))]),
        figure4=dict(title='Figure 4', labels=['SSL', 'TASK'], columns=['mIoU'], x='', panels='', rows=[]))


def test_each_claim_is_about_the_methods_that_it_names():
    found = {claim.text: claim for claim in claims_of(tables_with(gpt=52., vpt_deep=53., hard_gates=51.), {}, 3)}
    verdicts = {text: [c.verdict for c in claim.comparisons] for text, claim in found.items()}
    assert verdicts == {
        'Gated Prompt Tuning is better than VPT-shallow': [HOLDS] * 4,
        'Gated Prompt Tuning is better than VPT-deep with as many prompts': [FAILS] * 3,
        'Gates improve VPT-shallow': [NOISE] * 4,
        'Temperatures improve it further': [HOLDS] * 4,
        'Hard gates are better than VPT-shallow': [HOLDS] * 2,
        'Soft gates are better than hard ones': [HOLDS] * 2,
        'Prompts that enter at a later block are better (the best later block against the first)': [HOLDS, FAILS],
        'With half as many prompts it is still better than VPT-deep': [HOLDS],
    }
    assert [c.where for c in found['Soft gates are better than hard ones'].comparisons] == [
        f'mae {SINGLE_SCALE_COLUMN}', 'mae breeds']
    assert claims_of(tables_with(), {}, 4) == []  # not all seeds are there


def test_the_best_later_block_must_be_better_by_more_than_a_choice_among_so_many_is():
    table = dict(rows=[dict(name=['mae', 'breeds'], values={
        '1': {'1': 40., '2': 41., '3': 42.}, '8': {'1': 43.1, '2': 44., '3': 45.2}})])
    assert [c.verdict for c in later_blocks(table, 3)] == [HOLDS]
    table['rows'][0]['values'] |= {str(block): {'1': 30., '2': 30., '3': 30.} for block in (3, 4, 5)}
    (found, ) = later_blocks(table, 3)
    assert found.verdict == NOISE and found.where == 'mae breeds, block 8'


def test_variants_of_the_gates_are_compared_with_that_of_the_tables():
    found = {c.where: c.verdict for c in gate_comparisons(tables_with()['gates'], 3)}
    assert found == {'prior 0 breeds': HOLDS, 'prior 10 breeds': NOISE, 'prior -10 breeds': FAILS,
                     'prior 0, SGD at 0.1 breeds': HOLDS}  # than the paper's, which has SGD too


def test_selected_blocks_differ_where_cells_do_and_not_where_only_seeds_do():
    rng = np.random.default_rng(0)

    def ratio(block: int) -> list[float]:
        weights = rng.uniform(0, 0.05, 11)
        weights[block] += 1
        return list(weights / weights.sum())

    cells = [(vit, task) for vit in range(2) for task in range(3)]

    def verdicts(block: Callable[[int, int, int], int]) -> dict[str, str]:
        ratios = {f'vit{vit} task{task}': [ratio(block(vit, task, seed)) for seed in range(3)] for vit, task in cells}
        return {c.where: c.verdict for c in selected_blocks(ratios)}

    vits, tasks = 'ViTs, on the same task', 'tasks, for the same ViT'
    assert verdicts(lambda vit, task, seed: vit) == {vits: HOLDS, tasks: NOISE}
    assert verdicts(lambda vit, task, seed: task) == {vits: NOISE, tasks: HOLDS}
    assert verdicts(lambda vit, task, seed: 3 * vit + task) == {vits: HOLDS, tasks: HOLDS}
    assert verdicts(lambda vit, task, seed: seed) == {vits: NOISE, tasks: NOISE}
    assert list(selected_blocks({'vit task': [ratio(0)] * 3})) == []
    assert list(selected_blocks({'vit0 task': [ratio(0)], 'vit1 task': [ratio(1)]})) == []


# --- report -----------------------------------------------------------------------------------------------------------


def results_with(**values: float) -> dict:
    tables = tables_with(**values)
    return dict(
        about=dict(command='python tools/replicate.py', preset='full', version='0', runs=10, finished=9, failed=1,
                   hours=1.5, device=['CPU'], commit=['abc'], python=['3'], versions=['torch 2'], seeds=[1, 2, 3],
                   search_seed=0, images=dict(pretraining=dict(train=5), scenes=dict(train=6, val=7, test=8)),
                   pretraining=dict(mae=7), iterations=dict(scenes=3), prompts=12, heads=[0.1, 0.2, 0.3],
                   rates=[0.001, 0.01], common=0.01),
        tables=tables, parameters=dict(gpt=1234),
        rates=[dict(task='scenes', vit='mae', method='gpt', head=0.1, backbone=0.01,
                    validation={'0.001': None, '0.01': 30.}),
               dict(task='scenes', vit='mae', method='linear', head=0.2, backbone=None,
                    validation={'0.1': 20., '0.2': 30., '0.3': 25.})],
        moved=[dict(gates='prior 0', task='breeds', rate=0.02, moved={'1': 0.5, '2': 1.5})],
        selection_ratios={f'{vit} breeds': [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]] for vit in ('mae', 'mocov3')},
        claims=[c._asdict() | dict(comparisons=[x._asdict() for x in c.comparisons])
                                     for c in claims_of(tables, {}, 3)])


def test_the_report_has_means_deviations_and_what_was_trained():
    text = markdown(results_with(gpt=52., full=99.))
    assert '9 of 10 runs finished, 1 failed' in text
    row = next(line for line in text.splitlines() if line.startswith('| Gated Prompt Tuning |'))
    assert row.count('**52.00 ± 0.10**') == 6 and '| 1,234 |' in row  # full fine-tuning is not among the frozen ones
    assert '| Full fine-tuning |  | 99.00 ± 0.10 |' in text
    assert '| scenes | MAE | Gated Prompt Tuning | diverged | **30.00** |' in text
    assert '0 of 1 heads have the lowest or highest; of 1 others 0 have the lowest and 1 the highest.' in text
    assert '| prior 0 | 51.00 ± 0.10 (better) | 0.02 | 1 ± 0.7 |' in text
    assert 'Of 4 comparisons at 5 %, about 0 would' in text  # of the gates
    assert '| Gated Prompt Tuning is better than VPT-shallow | Tables 1 to 3 | 4 of 4 |  |  |' in text


def test_the_csv_has_a_line_for_every_value():
    results = results_with()
    lines = as_csv(results).splitlines()
    values = [v for table in results['tables'].values() for row in table['rows'] for v in row['values'].values()]
    assert len(lines) == 1 + sum(map(len, values)) + 2 + 12 + 4
    assert 'selection ratio,mocov3 breeds,block 2,3,0.25' in lines
    assert f'segmentation,mae gpt,{SINGLE_SCALE_COLUMN},2,50.0' in lines
    assert 'furthest gate,prior 0,breeds,2,1.5' in lines and 'search,scenes mae gpt,0.01,0,30.0' in lines


def test_publishing_replaces_its_part_of_the_page_and_no_other(tmp_path):
    page = tmp_path / 'miniature.md'
    page.write_text(f'before\n{BEGIN}\noutdated\n{END}\nafter\n')
    publish(results_with(), tmp_path / 'docs', page)
    first = page.read_text()
    assert first.startswith('before\n') and first.endswith('\nafter\n') and 'outdated' not in first
    assert {path.name for path in (tmp_path / 'docs').iterdir()} == {
        f'{name}.{suffix}' for names, suffixes in (
            (('results', ), ('md', 'csv', 'json')),
            (('segmentation', 'classification', 'figure1', 'figure4', 'figure7'), ('png', 'svg')))
        for name in names for suffix in suffixes}
    assert page_part(json.loads((tmp_path / 'docs/results.json').read_text())) in first
    publish(results_with(), tmp_path / 'docs', page)
    assert page.read_text() == first
    with pytest.raises(SystemExit, match='full preset'):
        publish(dict(results_with(), about=dict(results_with()['about'], preset='quick')), tmp_path / 'docs', page)
    page.write_text('nothing')
    with pytest.raises(SystemExit, match='no lines'):
        publish(results_with(), tmp_path / 'docs', page)


def test_the_documentation_says_what_the_published_results_say():
    results = json.loads((PUBLISHED / 'results.json').read_text(encoding='utf-8'))
    assert page_part(results) in PAGE.read_text(encoding='utf-8')
    assert (PUBLISHED / 'results.md').read_text(encoding='utf-8') == markdown(results)
    assert (PUBLISHED / 'results.csv').read_text(encoding='utf-8') == as_csv(results)
    assert results['about']['finished'] == results['about']['runs'] and results['about']['command']
    again = claims_of(results['tables'], results['selection_ratios'], len(results['about']['seeds']))
    for claim, found in zip(again, results['claims'], strict=True):
        assert claim.text == found['text']
        for one, other in zip(claim.comparisons, found['comparisons'], strict=True):
            assert (one.where, one.verdict) == (other['where'], other['verdict'])
            assert one.p == pytest.approx(other['p'], rel=1e-9)


def test_the_report_of_nothing_says_that_nothing_has_finished(tmp_path):
    with pytest.raises(SystemExit, match='have not finished'):
        replicate(FULL, tmp_path, report_only=True)
    text = (tmp_path / 'results.md').read_text()
    assert '`: 0 of 72 runs finished, ' in text and '.png' not in text  # 3 ViTs, 45 heads, 4 variants with SGD
    assert not [*tmp_path.glob('*.png')]
    assert json.loads((tmp_path / 'results.json').read_text())['parameters'] == {}


def test_a_run_of_the_search_that_diverged_keeps_nothing_from_being_published(plan):
    searched, reported = plan.searches({})[Adaptation('scenes', 'mae', 'linear')].values(), plan.pretrainings()
    records = {run.name: dict(status='finished', made_with=dict(
        device='CPU', commit=None, python='3', versions={'torch': '2'})) for run in [*searched, *reported]}
    first, *_ = searched
    records[first.name] = dict(status='failed', reason='stopped at iteration 7: the loss is nan')
    found = about(plan, searched, reported, records)
    check_complete(found)
    assert found['commit'] == [] and 'commit' not in conditions(dict(about=found, rates=[]))
    records[reported[0].name] = records[first.name]
    with pytest.raises(SystemExit, match='1 runs failed'):
        check_complete(about(plan, searched, reported, records))


# --- from beginning to end --------------------------------------------------------------------------------------------

TINY = '''
import os, signal
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
os.environ['OMP_NUM_THREADS'] = '1'
os.chdir({root!r})
from mmseg_gpt.lab.miniature.carry_out import replicate
from mmseg_gpt.lab.miniature.plan import QUICK
if __name__ == '__main__':
    preset = QUICK._replace(vits=('mae', ), methods=('gpt', 'linear'), heads=(0.1, ), rates=(0.01, ),
                            counts={{'gpt': (1, )}}, gates=('prior -10, SGD at 0.001', ))
    replicate(preset, Path({out!r}), jobs=2)
'''


@pytest.mark.slow
def test_a_tiny_replication_is_interrupted_and_goes_on(tmp_path):
    script, out = tmp_path / 'tiny.py', tmp_path / 'out'
    script.write_text(TINY.format(root=str(ROOT), out=str(out)))

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    with start() as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith('[2/3]'):  # of the heads' learning rates
                process.terminate()
        assert process.wait() != 0
    assert lines[-1] == 'stopped; the same command goes on\n' and 'Traceback' not in ''.join(lines)
    with start() as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert 'data: in' in said and 'pretraining: 1 of 1 done before' in said
    assert re.search(r'learning rates of heads: [23] of 3 done before', said)
    results = json.loads((out / 'results.json').read_text())
    assert results['about']['finished'] == results['about']['runs'] and not results['about']['failed']
    for name in ('segmentation', 'classification'):
        for row in results['tables'][name]['rows']:
            assert all(set(values) == {'1', '2'} for values in row['values'].values()) and row['values'], row
    assert results['parameters']['linear'] == 0
    assert results['parameters']['gpt'] == 12 * 64 + 11 + 12
    moved = {(each['gates'], each['task']): max(each['moved'].values()) for each in results['moved']}
    assert {name for name, _ in moved} == {GPT, PAPER}
    assert {each['rate'] for each in results['moved']} == {0.01, 0.001}
    assert moved[GPT, 'breeds'] > 0 and moved[PAPER, 'breeds'] < 1e-3
    assert (out / 'figure7.png').is_file() and (out / 'segmentation.png').is_file()
    assert all(record['made_with']['versions']['torch'] for record in map(
        lambda path: json.loads(path.read_text()), out.glob('runs/*/run.json')))


def test_an_incomplete_replication_is_said_to_be_so():
    check_complete(dict(runs=3, finished=3, failed=0))
    with pytest.raises(SystemExit, match='1 runs failed; --retry-failed'):
        check_complete(dict(runs=3, finished=2, failed=1))
    with pytest.raises(SystemExit, match='1 of the runs'):
        check_complete(dict(runs=3, finished=2, failed=0))


def test_runs_of_other_data_are_refused_or_removed(tmp_path):
    plan = Plan(QUICK._replace(images=dict(breeds=dict(train=1))), tmp_path)
    draw(plan, overwrite=False)
    plan.runs.mkdir()
    draw(plan, overwrite=False)  # the same again
    other = Plan(QUICK._replace(images=dict(breeds=dict(train=2))), tmp_path)
    with pytest.raises(SystemExit, match='runs of other data'):
        draw(other, overwrite=False)
    assert len(list(plan.data.rglob('*.png'))) == 1
    draw(other, overwrite=True)
    assert len(list(plan.data.rglob('*.png'))) == 2 and not plan.runs.exists()


@pytest.mark.slow
def test_the_quick_preset(tmp_path):
    command = [sys.executable, 'tools/replicate.py', '--quick', '--out', str(tmp_path / 'quick')]
    subprocess.run(command, cwd=ROOT, check=True)
    results = json.loads((tmp_path / 'quick/results.json').read_text())
    assert results['about']['finished'] == results['about']['runs']
    assert {tuple(row['name']) for row in results['tables']['segmentation']['rows']} == {
        (vit, method) for vit in QUICK.vits for method in METHODS}
    assert len(PRETRAINING) == 24

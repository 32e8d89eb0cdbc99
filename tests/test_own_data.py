"""One's own images: from a folder to a measured model in one command, which can be interrupted."""

import argparse
import json
import multiprocessing
import os
import re
import runpy
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

import mmseg_gpt
from mmseg_gpt import compat, engine
from mmseg_gpt.checks.values import wrong_paramwise
from mmseg_gpt.engine.config import read_config
from mmseg_gpt.engine.hooks import StopOnSignalHook
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.own_data import Adapted, OwnDataError, Request, load
from mmseg_gpt.own_data import config as configs
from mmseg_gpt.own_data import run as runs
from mmseg_gpt.own_data.look import OwnData, keep_earlier, look
from mmseg_gpt.own_data.plan import Machine, Times, add_schedule, make_plan
from mmseg_gpt.own_data.python import as_python
from mmseg_gpt.own_data.report import draw_extremes, mean_iou
from mmseg_gpt.recipes.methods import METHODS, method_of
from mmseg_gpt.resources import TOOLS

compat.formatter_module().FormatCode = lambda text, **_: (text, True)  # half of the time of such a run

ARCH = dict(embed_dims=8, num_layers=12, num_heads=2, mlp_ratio=2)
CLASSES = 'floor,box,sky'


@pytest.fixture(autouse=True)
def tiny_vit(tmp_path_factory, monkeypatch):
    """Lets the default ViT be one of width 8, whose weights are in a file."""
    file = tmp_path_factory.mktemp('vit') / 'vit.pth'
    torch.manual_seed(0)
    torch.save(GatedPromptViT(arch=ARCH, img_size=32, patch_size=8, out_type='cls_token').state_dict(), file)
    settings = dict(arch=ARCH, patch_size=8, init_cfg=dict(type='PretrainedViT', checkpoint=str(file)))
    for module in (configs, runs):
        monkeypatch.setattr(module, 'settings_of_vit', lambda vit: dict(settings))


def draw(folder: Path, **numbers: int) -> Path:
    """Draws scenes of a floor, a box and the sky, with a line that is not labelled, in images/ and masks/."""
    random = np.random.default_rng(0)
    for split, number in numbers.items():
        for i in range(number):
            mask = np.zeros((32, 40), np.uint8)
            left = random.integers(5, 25)
            mask[8:24, left:left + 10], mask[:6], mask[-2:] = 1, 2, 255
            image = np.stack([mask == 0, mask == 1, mask == 2], -1).astype(np.uint8) * 200
            image += random.integers(0, 50, image.shape, dtype=np.uint8)
            for kind, pixels in dict(images=image, masks=mask).items():
                file = folder / kind / split / f'{split}_{i}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    return folder


def draw_classes(folder: Path) -> Path:
    """Draws a folder each for red and for green images, with splits."""
    random = np.random.default_rng(0)
    for split, number in dict(train=6, val=3, test=4).items():
        for channel, name in enumerate(('red', 'green')):
            for i in range(number):
                pixels = random.integers(0, 60, (30, 36, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                (folder / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / split / name / f'{name}_{i}.png')
    return folder


def adapt(folder: Path, work: Path, **options) -> tuple[object, list[str]]:
    """Runs mmseg_gpt.adapt with few iterations; returns the result, and what was said."""
    said: list[str] = []
    given = dict(classes=CLASSES, size=32, crop=32, iterations=6, workers=1) | options
    given = {name: value for name, value in given.items() if value is not None}
    return mmseg_gpt.adapt(folder, work_dir=work, say=said.append, **given), said


def test_a_folder_becomes_a_measured_model(tmp_path):
    folder = draw(tmp_path / 'data', train=6, val=3, test=3)
    for file in [*folder.glob('*/test/*.png')]:
        file.rename(file.with_stem(f'{file.stem} (a)'))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob('*')}
    result, said = adapt(folder, tmp_path / 'work', iterations=60, head='linear')
    assert multiprocessing.active_children() == []  # those that load persist between validations
    assert {file: file.stat().st_mtime_ns for file in folder.rglob('*')} == before
    text = '\n'.join(said)
    assert '6 training, 3 validation, 3 test pairs' in text and re.search(r'box +12\.50%', text)
    assert result.metric == 'mIoU' and result.measured_on == 'test' and result.classes == ('floor', 'box', 'sky')
    per_class = [row['IoU'] for row in result.per_class]
    assert result.score == pytest.approx(np.mean(per_class), abs=0.02)
    assert result.score > 50  # colours tell the classes apart
    metrics = json.loads((tmp_path / 'work/metrics.json').read_text())
    assert metrics['mIoU'] == result.score and [*metrics['per_class'].values()] == pytest.approx(per_class, abs=0.01)
    image = folder / 'images/test/test_0 (a).png'
    labels = result.predict(image)
    assert labels.shape == (32, 40) and set(np.unique(labels)) <= {0, 1, 2}
    report = result.report.read_text()
    assert f'{result.score:.2f}' in report and '| box |' in report and '(confusion.png)' in report
    assert re.search(r']\(pictures/(best|worst)_1_test_.%20%28a%29.png\)', report)
    assert [file.is_file() for kind in ('best', 'worst') for file in result.pictures[kind]] == [True] * 2
    lines = re.search(r'```python\n(.*?)```', report, re.DOTALL)[1].replace("'photo.jpg'", repr(str(image)))
    assert len(lines.strip().splitlines()) == 3
    found: dict = {}
    exec(lines, found)
    assert (found['labels'] == labels).all()
    moved = (tmp_path / 'work').rename(tmp_path / 'moved')
    assert (load(moved).predict(image) == labels).all()


@pytest.mark.parametrize('names', [tuple(map(str, range(300))), ()], ids=['names', 'a shared model without names'])
def test_labels_above_255_are_not_wrapped(names, tmp_path):
    found = Adapted(tmp_path, 'segmentation', 'mIoU', 1., 'val', names, [], tmp_path, tmp_path, tmp_path)
    answer = SegDataSample(pred_sem_seg=PixelData(data=torch.full((1, 2, 2), 299)))
    model = SimpleNamespace(decode_head=SimpleNamespace(num_classes=300))
    found.__dict__['model'] = SimpleNamespace(prepare=lambda _: {}, predict=lambda _: [answer], model=model)
    assert (found.predict('photo.jpg') == 299).all()


def test_the_second_start_of_a_finished_command_only_says_so(tmp_path, monkeypatch, capsys):
    folder = draw(tmp_path / 'data', train=2, val=1)
    first, said = adapt(folder, tmp_path / 'work')
    assert first.measured_on == 'val' and 'probably higher than on new images' in '\n'.join(said)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / 'work').rglob('*')}
    again, said = adapt(folder, tmp_path / 'work')
    assert 'holds the finished result' in said[0] and again.score == first.score
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / 'work').rglob('*')} == times
    options = dict(classes=CLASSES, size=32, crop=32, iterations=6, workers=1, work_dir=tmp_path / 'work')
    words = [word for name, value in options.items() for word in (f'--{name.replace("_", "-")}', str(value))]
    monkeypatch.setattr('sys.argv', ['mmseg-gpt adapt', str(folder), *words])
    runpy.run_path(str(TOOLS / 'adapt.py'), run_name='__main__')
    assert capsys.readouterr().out.splitlines()[-1] == f'mIoU: {first.score:.2f}'
    monkeypatch.syspath_prepend(str(TOOLS))
    from arguments import add_task_argument
    parser = argparse.ArgumentParser()
    add_task_argument(parser)
    tasks = parser.parse_args(['--task', 'mine', str(tmp_path / 'work'), '--task', 'b', 'hf://me/b']).tasks
    assert tasks == [['mine', str(first.config), str(first.checkpoint)], ['b', 'hf://me/b', 'hf://me/b']]
    with pytest.raises(OwnDataError, match=r'a model was trained there:\n  --method: lora before, gpt now\n'):
        adapt(folder, tmp_path / 'work', method='gpt')


def test_an_interrupted_command_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    folder = draw(tmp_path / 'data', train=4, val=2, test=2)
    monkeypatch.setattr(runs, 'timed', lambda *_: Times(1., 0.01))  # how often to validate follows from it
    whole, _ = adapt(folder, tmp_path / 'whole')
    after = StopOnSignalHook.after_train_iter

    def interrupted(self, runner, *args, **options):
        if runner.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        after(self, runner, *args, **options)
    monkeypatch.setattr(StopOnSignalHook, 'after_train_iter', interrupted)
    with pytest.raises(SystemExit) as stopped:
        adapt(folder, tmp_path / 'work')
    assert stopped.value.code == 128 + signal.SIGTERM
    monkeypatch.setattr(StopOnSignalHook, 'after_train_iter', after)
    with pytest.raises(OwnDataError, match='--seed: 0 before, 1 now'):
        adapt(folder, tmp_path / 'work', seed=1)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # this time in the test
        patch.setattr(runs, 'write_metrics', lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        adapt(folder, tmp_path / 'work')
    image = folder / 'images/train/train_0.png'
    hidden = image.rename(tmp_path / 'hidden.png')
    with pytest.raises(OwnDataError, match='the images or their labels have changed since the training'):
        adapt(folder, tmp_path / 'work')
    hidden.rename(image)
    mask = folder / 'masks/train/train_0.png'
    values = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(mask), np.where(values == 1, 2, values))
    with pytest.raises(OwnDataError, match='labels have changed since the training'):
        adapt(folder, tmp_path / 'work')
    cv2.imwrite(str(mask), values)
    seconds = json.loads((tmp_path / 'work/adapt.json').read_text())['seconds']
    os.utime(tmp_path / 'work/adapt.json', (time.time() - 1000, ) * 2)  # as if the last start had been killed
    result, said = adapt(folder, tmp_path / 'work')
    assert any('going on with' in sentence for sentence in said)
    assert result.seconds - 900 > seconds > 0
    assert result.score == whole.score and result.per_class == whole.per_class
    weights = [torch.load(each.checkpoint, weights_only=True)['state_dict'] for each in (result, whole)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_class_folders_become_a_classifier(tmp_path):
    folder = draw_classes(tmp_path / 'data')
    result, said = adapt(folder, tmp_path / 'work', classes=None, iterations=60, size=36, batch=8)
    assert result.task == 'classification' and result.metric == 'accuracy' and result.score > 80
    assert '12 training, 6 validation, 8 test images' in '\n'.join(said)
    found = result.predict(folder / 'test/red/red_0.png')
    assert found['class'] == 'red' and found['score'] > 0.5
    log = next((tmp_path / 'work').rglob('scalars.json')).read_text().splitlines()
    losses = [json.loads(line)['loss'] for line in log if 'loss' in json.loads(line)]
    assert losses[0] < 0.8 and losses[-1] < losses[0]  # ln 2 = 0.69: the start is calm
    assert (tmp_path / 'work/confusion.png').is_file() and 'recall' in result.report.read_text()


def test_a_dry_run_writes_an_ordinary_config_and_trains_nothing(tmp_path):
    folder = draw(tmp_path / 'data', train=2, val=1, test=1)
    options = dict(iterations=20, head='setr_pup', loss='ce+dice', class_weights='auto', amp='bf16', method='lora')
    result, _ = adapt(folder, tmp_path / 'work', dry_run=True, **options)
    assert result is None and not [*(tmp_path / 'work').glob('*.pth')]
    cfg = read_config(str(tmp_path / 'work/config.py'))
    assert cfg.train_dataloader.dataset.metainfo.classes == ('floor', 'box', 'sky')
    assert cfg.model.decode_head.num_classes == 3 and cfg.optim_wrapper.type == 'Bf16OptimWrapper'
    assert [loss.type for loss in cfg.model.decode_head.loss_decode] == ['CrossEntropyLoss', 'ClassDiceLoss']
    assert cfg.model.auxiliary_head[0].loss_decode[0].loss_weight == 0.4
    assert len(cfg.model.decode_head.loss_decode[0].class_weight) == 3
    assert 'dataset' not in cfg and cfg.train_cfg.max_iters == 20
    # Other options only change the config, as nothing was trained; an edited config is not thrown away.
    adapt(folder, tmp_path / 'work', dry_run=True, **options | dict(iterations=30))
    file = tmp_path / 'work/config.py'
    assert read_config(str(file)).train_cfg.max_iters == 30
    file.write_text(file.read_text().replace('lr=0.', 'lr=1.'))
    with pytest.raises(OwnDataError, match='its config was edited since'):
        adapt(folder, tmp_path / 'work', dry_run=True, **options)
    adapt(folder, tmp_path / 'work', dry_run=True, **options | dict(iterations=30))
    assert 'lr=1.' in file.read_text()
    # Images may be added before a training begins, and not after.
    draw(folder, train=5)
    adapt(folder, tmp_path / 'work', dry_run=True, **options | dict(iterations=30))
    (tmp_path / 'work/last_checkpoint').touch()
    adapt(folder, tmp_path / 'work', dry_run=True, **options | dict(iterations=30))
    draw(folder, train=7)
    with pytest.raises(OwnDataError, match='the images or their labels have changed since the training'):
        adapt(folder, tmp_path / 'work', dry_run=True, **options | dict(iterations=30))


@pytest.mark.parametrize('task', ['segmentation', 'classification'])
def test_the_optimizer_of_every_method_names_what_it_trains(tmp_path, task):
    folder = draw(tmp_path / 'data', train=2, val=1) if task == 'segmentation' else draw_classes(tmp_path / 'data')
    for method in METHODS:
        adapt(folder, tmp_path / method, dry_run=True, method=method, head='linear' if task == 'segmentation' else None,
              classes=CLASSES if task == 'segmentation' else None)
        cfg = read_config(str(tmp_path / method / 'config.py'))
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        assert wrong_paramwise(cfg, model) == []
        assert method_of(cfg.model.backbone) == method
        assert any(p.requires_grad for p in model.backbone.parameters()) == (method != 'linear')


@pytest.mark.parametrize(('options', 'message'), [
    (dict(vit='dinov2_x'), 'vit dinov2-x is none of .*Did you mean dinov2'),
    (dict(method='gtp'), 'method gtp is none of .*Did you mean gpt'),
    (dict(head='setr'), 'head setr is none of'),
    (dict(weights='nowhere.pth'), 'there is no file nowhere.pth'),
    (dict(iteration=3), 'no option iteration. Did you mean iterations'),
    (dict(folder='nowhere'), 'nowhere does not exist'),
    (dict(val=1.), 'val is a share'),
])
def test_wrong_options_are_refused_with_the_choices(tmp_path, options, message):
    with pytest.raises(OwnDataError, match=message):
        Request.of(**dict(folder=str(tmp_path)) | options)


def test_a_vit_without_a_public_address_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, 'settings_of_vit', lambda vit: dict(init_cfg=dict(
        checkpoint='pretrained/dinov3_vits16_pretrain_lvd1689m-08c60483.pth')))
    with pytest.raises(OwnDataError, match=r'dinov3-downloads.*--weights'):
        adapt(draw(tmp_path / 'data', train=2, val=1), tmp_path / 'work', vit='dinov3_s')


def test_several_processes_are_refused(tmp_path, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, '1')
    with pytest.raises(OwnDataError, match='adapt starts one process'):
        adapt(draw(tmp_path / 'data', train=2, val=1), tmp_path / 'work')


def test_masks_that_are_not_understood_are_refused_with_a_table_to_complete(tmp_path):
    folder = draw(tmp_path / 'data', train=2, val=1)
    mask = folder / 'masks/train/train_0.png'
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 7
    Image.fromarray(pixels).save(mask)
    with pytest.raises(OwnDataError, match='7'):
        adapt(folder, tmp_path / 'work')
    assert not (tmp_path / 'work/config.py').exists()


def test_a_work_directory_of_something_else_is_left_alone(tmp_path):
    folder = draw(tmp_path / 'mine', train=2, val=1)
    for name in ('config.py', 'result.json', 'report.md'):
        (tmp_path / name).write_text('{}')
        with pytest.raises(OwnDataError, match=f'{name} was not written by this command'):
            adapt(folder, tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / 'config.py').write_text(f'{configs.MADE_BY} 1: unfinished')
    assert runs.read_state(tmp_path, Request.of(folder=folder)) == dict(seconds=0., told=[])
    pictures = [tmp_path / f'{name}.png' for name in ('holiday', 'best_friend', 'best_1_a', 'worst_2_b')]
    for picture in pictures:
        picture.touch()
    nothing = SimpleNamespace(test_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=[])), visualizer=
                              SimpleNamespace(), test_evaluator=SimpleNamespace(dataset_meta={}))
    assert draw_extremes(nothing, {}, tmp_path) == dict(best=[], worst=[])
    assert [picture.exists() for picture in pictures] == [True, True, False, False]


def test_no_table_that_somebody_completed_is_lost(tmp_path):
    table, said = tmp_path / 'classes.csv', []
    for text in ('first', 'second', 'second', 'third'):
        keep_earlier(table, text, said.append)
        table.write_text(text)
    assert [(tmp_path / f'classes_earlier{number}.csv').read_text() for number in ('', 2)] == ['first', 'second']
    assert len(said) == 2 and 'classes_earlier2.csv takes it' in said[1]


def test_images_of_16_bits_are_refused_with_the_scale_that_suits_and_read_by_it(tmp_path):
    folder = draw(tmp_path / 'data', train=4, val=1, test=1)
    for file in (folder / 'images').rglob('*.png'):
        pixels = np.array(Image.open(file)).astype(np.uint16) * 12
        cv2.imwrite(str(file), pixels)
    with pytest.raises(OwnDataError, match=r'--scale'):
        adapt(folder, tmp_path / 'work')
    adapt(folder, tmp_path / 'work', scale='0:3060', bands='1,2,3,1', dry_run=True)
    cfg = read_config(str(tmp_path / 'work/config.py'))
    for loader in ('train', 'val', 'test'):
        reader = cfg[f'{loader}_dataloader'].dataset.pipeline[0]
        assert reader.type == 'LoadBands' and reader.bands == (1, 2, 3, 1)
    assert cfg.model.backbone.in_channels == 4 and len(cfg.model.data_preprocessor.mean) == 4
    engine.check_files(cfg, ('train_dataloader', 'val_dataloader'), pretrained=True)


def data_of(task: str, number: int, size: tuple[int, int]) -> OwnData:
    """What was found, of so many images of a size."""
    counts = dict(train=number, val=number // 4)
    return OwnData(task, Path('x'), ('a', 'b'), ((0, 0, 0), (1, 1, 1)), Path('x'), {}, counts, [size] * number, {})


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize(('number', 'size'), [(20, (480, 360)), (3000, (640, 640)), (200, (4000, 3000)), (9, (64, 48))])
def test_plans_suit_the_data_and_the_machine(device, number, size):
    machine, options = Machine(device, 'it', 4), Request.of(folder='.')
    data = data_of('segmentation', number, size)
    plan = make_plan(data, 14, machine, options)
    assert plan.crop % 14 == 0 and plan.crop <= max(plan.size, 14) and plan.batch <= number
    add_schedule(plan, data, machine, options, Times(3., 0.5))
    assert 100 <= plan.iterations <= 20000 and 0 < plan.interval <= plan.iterations
    if device == 'cpu':
        assert plan.iterations * 3. <= 21 * 60
        validations = -(-plan.iterations // plan.interval)
        assert validations == 1 or validations * data.counts['val'] * 0.5 <= 0.3 * plan.iterations * 3.
    assert {'size', 'crop', 'batch', 'schedule', 'validation', 'time'} <= plan.reasons.keys()


def test_what_is_asked_for_goes_before_what_follows():
    machine, options = Machine('cuda', 'it', 8), Request.of(folder='.', crop=100, batch=3, size=200, iterations=7)
    data = data_of('segmentation', 50, (640, 480))
    plan = make_plan(data, 16, machine, options)
    add_schedule(plan, data, machine, options, None)
    assert (plan.crop, plan.batch, plan.size, plan.iterations) == (96, 3, 200, 7)


def test_crops_of_a_classification_fit_into_its_images():
    machine, data = Machine('cpu', 'it', 2), data_of('classification', 50, (640, 480))

    def sides(**given: int) -> tuple[int, int]:
        plan = make_plan(data, 14, machine, Request.of(folder='.', **given))
        return plan.size, plan.crop
    assert sides() == (256, 224) and sides(size=56) == (56, 56) and sides(size=300) == (300, 224)
    assert sides(crop=448) == (448, 448) and sides(size=100, crop=98) == (100, 98)
    for given in (dict(size=56, crop=112), dict(size=10)):
        with pytest.raises(OwnDataError, match=f'--size {given["size"]} is less than the crops'):
            sides(**given)


def test_settings_are_written_as_python_that_gives_them_back():
    settings = dict(a=[dict(type='X', values=(1, )), *range(60)], b={'prompt.tokens': dict(lr=1e-3)}, c=None, d='it\'s',
                    e=[[i, i, i] for i in range(30)], f=dict(g=('some words', ) * 20), h=())
    text = as_python(settings)
    assert eval(text) == settings and max(map(len, text.splitlines())) <= 120


def test_the_score_of_an_image_is_the_mean_over_the_classes_in_it_or_predicted():
    # Class 0: 6 of 10 right; class 3: 2 of 6; class 1 occurs in neither.
    assert mean_iou(np.array([[0, 0], [0, 3], [3, 3]]), np.array([6, 4, 2])) == pytest.approx((6 / 10 + 2 / 6) / 2)


def test_classification_takes_or_refuses_each_option(tmp_path):
    for i, name in enumerate(('cat', 'dog', 'eel')):
        (tmp_path / 'data' / name).mkdir(parents=True)
        for j in range(4):
            Image.fromarray(np.full((16, 16, 3), 40 * i + j, np.uint8)).save(tmp_path / 'data' / name / f'{j}.png')

    def found(**given: object) -> OwnData:
        return look(Request.of(folder=str(tmp_path / 'data'), workers=1, **given), tmp_path / 'out/data', print)
    assert found(classes='eel,dog,cat').classes == ('eel', 'dog', 'cat')
    data = found(classes='eel,dog,cat', ignore=['dog'])
    assert data.classes == ('eel', 'cat') and data.counts == dict(train=6, val=2)
    assert all(('/eel/' in line) == line.endswith(' 0') for line in data.lists['train'].read_text().splitlines())
    merged = found(classes='eel,pet=cat+dog')
    assert merged.classes == ('eel', 'pet') and merged.pixels['val'].tolist() == [1, 2]
    for given in (dict(classes='x,y'), dict(ignore=['horse']), dict(loss='ce'), dict(class_weights='auto'),
                  dict(head='linear'), dict(masks='*x*', task='classification')):
        with pytest.raises(OwnDataError, match=f'--{next(iter(given)).replace("_", "-")}'):
            found(**given)


@pytest.mark.parametrize('given', [dict(size=-5), dict(size=0), dict(size=1), dict(seed=-1), dict(batch=0),
                                   dict(crop=0), dict(iterations=0)])
def test_numbers_out_of_range_are_refused(tmp_path, given):
    with pytest.raises(OwnDataError, match='must be at least'):
        Request.of(folder=str(tmp_path), **given)


def test_a_work_dir_among_the_images_is_refused(tmp_path):
    with pytest.raises(OwnDataError, match=r'--work-dir .* is inside'):
        Request.of(folder=str(tmp_path), work_dir=str(tmp_path / 'out'))
    assert Request.of(folder=str(tmp_path), work_dir=str(tmp_path / 'work_dirs/out')).work_dir


def test_no_mask_is_written_over_by_a_work_dir_around_the_images(tmp_path):
    folder = draw(tmp_path / 'data', train=2, val=1)
    mask = folder / 'masks/train/train_0.png'
    before = mask.read_bytes()
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/data').symlink_to(folder)
    for given in (dict(folder=folder), dict(images=folder / 'images', masks=folder / 'masks')):
        for work in (tmp_path, tmp_path / 'work'):
            with pytest.raises(OwnDataError, match='among the files of'):
                look(Request.of(**given, work_dir=work), work / 'data', print)
    assert mask.read_bytes() == before


@pytest.mark.parametrize('drawn', [lambda folder: draw(folder, train=2, val=1), draw_classes])
def test_a_work_directory_that_cannot_be_is_refused(tmp_path, drawn):
    (tmp_path / 'file').touch()
    with pytest.raises(OwnDataError, match=r'nothing can be written to the folder .*file/out/data: Not a directory'):
        adapt(drawn(tmp_path / 'data'), tmp_path / 'file/out', classes=None)


def test_the_share_held_out_by_default_is_no_other_option():
    unsaid, said = Request(folder='data'), Request(folder='data', val=0.2)
    assert unsaid.differences(said) == said.differences(unsaid) == []
    assert unsaid.differences(Request(folder='data', val=0.3)) == ['--val: 0.3 before, 0.2 now']

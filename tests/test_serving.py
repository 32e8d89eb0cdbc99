"""Tasks in a pool answer as their models alone do, and have the ViT in common."""

import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image
from shrink import SIZE
from tiny_run import next_name, run, tiny_config
from torch import Tensor

from mmseg_gpt.apis import AdapterPool
from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.checkpoints.write import write_checkpoint
from mmseg_gpt.datasets import SampleError
from mmseg_gpt.engine import Runner
from mmseg_gpt.lab.benchmark.serving import measure_growth
from mmseg_gpt.models import GatedPromptViT

pytest.importorskip('mmpretrain')
from mmseg_gpt.recipes import read_experiment

TOOLS = Path(__file__).parents[1] / 'tools'
ARCH = dict(embed_dims=24, num_layers=12, num_heads=2, mlp_ratio=2)  # what shrink makes of a ViT-B
SIDE = 32  # of what the classifiers see; segmentation sees 64, so the position embeddings differ
# Of each classifier, the experiment it is made from, and whether its checkpoint holds adapters only.
CLASSIFIERS = dict(birds=('cls_gpt_mae_cub', True), cars=('cls_vpt-deep_mae_cars', True),
                   dogs=('cls_linear_mae_dogs', False))
NAMES = ('ade', *CLASSIFIERS)
Tasks = dict[str, tuple[Config, Path]]


def segmentor(folder: Path) -> Config:
    """The main config in small, with logits in its answers, and a pretrained ViT that classification can use too."""
    cfg = tiny_config(folder, train_cfg__max_iters=1, default_hooks__checkpoint__interval=1,
                      default_hooks__checkpoint__adapter_only=True, work_dir=str(folder / 'ade'))
    torch.save(GatedPromptViT(arch=ARCH, img_size=SIZE, out_type='cls_token').state_dict(), folder / 'vit.pth')
    cfg.model.test_cfg.keep_logits = True
    cfg.test_dataloader.batch_size = 3
    return cfg


def classifier(folder: Path, name: str, experiment: str, adapter_only: bool) -> Config:
    """An experiment in small, on three folders with one of the drawn images each."""
    for i, image in enumerate(images(folder)):
        (folder / f'classes/class-{i}').mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / f'classes/class-{i}')
    cfg = read_experiment(experiment)
    cfg.model.backbone.update(
        arch=ARCH, img_size=SIDE, init_cfg=dict(type='PretrainedViT', checkpoint=str(folder / 'vit.pth')))
    cfg.model.head.update(in_channels=24, num_classes=3)
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(SIDE, SIDE), backend='pillow'),
             dict(type='PackInputs')]
    loader = dict(batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                  dataset=dict(type='CustomDataset', data_root=str(folder / 'classes'), pipeline=steps))
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg', 'train_dataloader', 'test_dataloader'):
        cfg.pop(key, None)
    cfg.update(work_dir=str(folder / name), log_level='WARNING', param_scheduler=[], train_dataloader=loader,
               test_dataloader=copy.deepcopy(loader))
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.checkpoint.update(interval=1, adapter_only=adapter_only)
    return cfg


def images(folder: Path) -> list[str]:
    return sorted(map(str, (folder / 'data/images/validation').glob('*.jpg')))


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('serving')


@pytest.fixture(scope='module')
def trained(folder) -> Tasks:
    """Config and checkpoint of each task, after one iteration."""
    torch.manual_seed(0)
    configs = dict(ade=segmentor(folder))
    configs |= {name: classifier(folder, name, *how) for name, how in CLASSIFIERS.items()}
    configs['dogs'].model.backbone.update(
        lora=dict(targets=('attn.qkv', 'mlp.fc2')), biases=True, adapter=dict(width=2))
    for cfg in configs.values():
        run(cfg)
    files = {name: next((folder / name).glob('*_1.pth')) for name in configs}
    assert [name for name in NAMES if 'frozen' in read_file(files[name])['meta']] == ['ade', 'birds', 'cars']
    return {name: (configs[name], files[name]) for name in configs}


@pytest.fixture
def make_pool(trained) -> Callable[..., AdapterPool]:
    """A factory of pools with the named tasks."""

    def make(*names: str, **options) -> AdapterPool:
        pool = AdapterPool('cpu', **options)
        for name in names:
            pool.add(name, *trained[name])
        return pool

    return make


@pytest.fixture(scope='module')
def alone(trained) -> Callable[..., list[BaseDataElement]]:
    """What the runner's model of a task alone says about its test images, by their own data loader."""

    @cache
    @torch.no_grad()
    def answers(name: str, dtype: torch.dtype = torch.float32) -> list[BaseDataElement]:
        cfg, checkpoint = copy.deepcopy(trained[name])
        cfg.update(load_from=str(checkpoint), experiment_name=next_name())
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        batch, = runner.test_dataloader
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
            return runner.model.eval().test_step(batch)

    return answers


def numbers(sample: BaseDataElement) -> Tensor:
    """Logits of a segmentation or scores of a classification."""
    return sample.seg_logits.data if 'seg_logits' in sample else sample.pred_score


def label(sample: BaseDataElement) -> Tensor:
    return sample.pred_sem_seg.data if 'pred_sem_seg' in sample else sample.pred_label


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
def test_a_mixed_batch_gets_the_answers_of_each_model_alone_in_its_order(make_pool, alone, dtype, scope):
    pool, expected = make_pool(*NAMES, dtype=dtype), {name: alone(name, dtype) for name in NAMES}
    # image 0 to every task, image 1 to every task, ...: no two of one task in a row
    requests = [(name, expected[name][i].img_path) for i in range(3) for name in reversed(NAMES)]
    with DefaultScope.overwrite_default_scope(scope):
        found = pool.predict(requests)
    wanted = [expected[name][i] for i in range(3) for name in reversed(NAMES)]
    for (name, image), ours, theirs in zip(requests, found, wanted, strict=True):
        assert type(ours) is type(theirs) and ours.img_path == image, name
        assert torch.equal(numbers(ours), numbers(theirs)) and torch.equal(label(ours), label(theirs)), name
        assert not numbers(ours).requires_grad
    assert len({tuple(numbers(sample).flatten()[:3].tolist()) for sample in found}) == len(found)


def test_what_else_is_in_a_batch_changes_nothing_beyond_rounding(make_pool, folder):
    pool = make_pool(*NAMES)
    for task in pool.tasks.values():
        task.model.double()
    requests = [(name, image) for image in images(folder) for name in NAMES]
    together = pool.predict(requests)
    for request, sample in zip(requests, together, strict=True):
        single, = pool.predict([request])
        assert numbers(sample).dtype == torch.float64
        torch.testing.assert_close(numbers(sample), numbers(single), rtol=1e-12, atol=1e-12)
        assert torch.equal(label(sample), label(single))


def test_arrays_and_files_of_any_size_are_answered_alike(make_pool, folder):
    pool, pixels = make_pool('ade', 'birds'), cv2.imread(images(folder)[0])
    narrow = np.ascontiguousarray(pixels[:, :70])
    path = Path(images(folder)[0])
    requests = [('ade', narrow), ('birds', pixels), ('ade', pixels), ('ade', path), ('birds', narrow)]
    found = pool.predict(requests)
    assert [tuple(sample.pred_sem_seg.shape) for sample in found if 'pred_sem_seg' in sample] == [
        (96, 70), (96, 96), (96, 96)]
    assert torch.equal(numbers(found[2]), numbers(found[3]))
    for request, sample in zip(requests, found, strict=True):
        torch.testing.assert_close(numbers(sample), numbers(pool.predict([request])[0]))


def test_labels_are_the_same_where_logits_are_not_kept(make_pool, trained, folder):
    pool, (cfg, checkpoint) = make_pool('ade', 'birds'), trained['ade']
    pool.add('lean', changed(cfg, model__test_cfg__keep_logits=False), checkpoint)
    whole, lean = pool.predict([(name, images(folder)[1]) for name in ('ade', 'lean')])
    assert 'seg_logits' not in lean and torch.equal(label(whole), label(lean)) and label(lean).unique().numel() > 1


def test_the_vit_is_in_memory_once(make_pool):
    pool = make_pool(*NAMES)
    states = {name: task.vit.vit_state() for name, task in pool.tasks.items()}
    for name in states['dogs']:
        weights = [state[name] for task, state in states.items() if name in state]
        assert len(weights) == (3 if name.startswith('norm.') else 4)
        assert len({id(weight) for weight in weights}) == (2 if name == 'pos_embed' else 1), name
    assert states['birds']['pos_embed'] is states['cars']['pos_embed'] is states['dogs']['pos_embed']

    vit = sum(p.nbytes for p in states['dogs'].values()) + states['ade']['pos_embed'].nbytes
    own = 0
    for name, task in pool.tasks.items():
        shared = {id(p) for p in states[name].values()}
        own += sum(p.nbytes for p in task.model.parameters() if id(p) not in shared)
        own += sum(b.nbytes for b in task.model.buffers())
    assert pool.nbytes == vit + own
    buffers = sum(b.nbytes for task in pool.tasks.values() for b in task.model.buffers())
    assert pool.num_parameters == (pool.nbytes - buffers) / 4


def test_in_bfloat16_the_vit_takes_half(make_pool):
    full, half = make_pool('birds'), make_pool('birds', 'cars', dtype=torch.bfloat16)
    linear = sum(p.nbytes for name, p in full.tasks['birds'].vit.vit_state().items()
                 if 'norm' not in name and name not in ('cls_token', 'pos_embed'))
    half.remove('cars')
    assert half.nbytes == full.nbytes - linear / 2
    assert half.tasks['birds'].vit.temperature.dtype == torch.float32


def test_a_task_can_be_removed(make_pool, trained, folder):
    pool, requests = make_pool('ade', 'birds', 'cars'), [('cars', image) for image in images(folder)]
    before, size, model = pool.predict(requests), pool.nbytes, weakref.ref(pool.tasks['ade'].model)
    pool.remove('ade')  # which brought the ViT
    assert list(pool.tasks) == ['birds', 'cars'] and model() is None
    assert pool.nbytes < size and pool.nbytes > make_pool('cars').nbytes
    for ours, theirs in zip(pool.predict(requests), before, strict=True):
        assert torch.equal(numbers(ours), numbers(theirs))
    pool.add('ade', *trained['ade'])
    assert pool.nbytes == size
    with pytest.raises(ValueError, match='no task "pets" in the pool, which has birds, cars, ade'):
        pool.remove('pets')


def another(trained: Tasks, path: Path, change: Callable[[dict], object]) -> Path:
    """The whole checkpoint of ``dogs`` after a change of its weights."""
    content = read_file(trained['dogs'][1])
    change(content['state_dict'])
    write_checkpoint(content, path)
    return path


def test_nothing_can_be_loaded_into_what_tasks_share(make_pool):
    model = make_pool('birds', 'cars').tasks['cars'].model
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match='shared by all tasks'):
        model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_task_of_another_vit_is_refused(make_pool, trained, tmp_path):
    def nudge(state: dict) -> None:
        state['backbone.blocks.3.mlp.fc1.bias'][0] += 1e-6

    pool, cfg = make_pool('ade', 'birds'), trained['dogs'][0]
    other = another(trained, tmp_path / 'other.pth', nudge)
    size = pool.nbytes
    with pytest.raises(CheckpointError) as error:
        pool.add('dogs', cfg, other)
    for words in ('"dogs"', f'the one inside {other}', 'ade, birds', 'vit.pth (SHA-256 ', '1 weights differ (blocks.3'):
        assert words in str(error.value)
    assert list(pool.tasks) == ['ade', 'birds'] and pool.nbytes == size
    alone = AdapterPool('cpu')
    alone.add('dogs', cfg, other)
    with pytest.raises(CheckpointError, match='another ViT'):
        alone.add('birds', *trained['birds'])


def test_a_position_embedding_of_its_own_is_kept(make_pool, trained, tmp_path):
    def move(state: dict) -> None:
        state['backbone.pos_embed'] += 1e-3

    pool = make_pool('birds')
    pool.add('dogs', trained['dogs'][0], another(trained, tmp_path / 'moved.pth', move))
    pool.add('ade', *trained['ade'])
    birds, dogs = (pool.tasks[name].vit for name in ('birds', 'dogs'))
    assert birds.pos_embed is not dogs.pos_embed and not torch.equal(birds.pos_embed, dogs.pos_embed)
    assert birds.cls_token is dogs.cls_token is pool.tasks['ade'].vit.cls_token


def test_a_shallower_vit_is_refused(make_pool, trained, tmp_path, monkeypatch):
    def cut(state: dict) -> None:
        for name in [name for name in state if 'blocks.11.' in name]:
            del state[name]

    cfg = copy.deepcopy(trained['dogs'][0])
    cfg.model.backbone.arch.num_layers = 11
    monkeypatch.setattr('mmseg_gpt.apis.task.check_backbone', lambda *_: None)  # another guard, which comes first
    with pytest.raises(CheckpointError, match=r'12 weights differ \(blocks\.11'):
        make_pool('birds').add('dogs', cfg, another(trained, tmp_path / 'cut.pth', cut))


def test_a_checkpoint_of_other_pooling_is_refused(make_pool, trained):
    cfg = copy.deepcopy(trained['dogs'][0])
    cfg.model.backbone.out_type = 'cls_token'
    with pytest.raises(CheckpointError, match='out_type was mean_all and is cls_token'):
        make_pool().add('dogs', cfg, trained['dogs'][1])


def changed(cfg: Config, **options) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def test_what_cannot_be_served_is_refused(make_pool, trained, folder):
    pool, (cfg, checkpoint) = make_pool('ade'), trained['birds']
    steps = cfg.test_dataloader.dataset.pipeline
    with pytest.raises(ValueError, match=r'full fine-tuning \(model.backbone.frozen=False\)'):
        pool.add('birds', changed(cfg, model__backbone__frozen=False), checkpoint)
    with pytest.raises(ValueError, match='a task "ade" in the pool already'):
        pool.add('ade', cfg, checkpoint)
    with pytest.raises(ValueError, match=r'no test_dataloader\.dataset\.pipeline'):
        pool.add('birds', changed(cfg, test_dataloader=None), checkpoint)
    with pytest.raises(ValueError, match='must begin with LoadImageFromFile'):
        pool.add('birds', changed(cfg, test_dataloader__dataset__pipeline=steps[1:]), checkpoint)
    with pytest.raises(CheckpointError, match='does not fit the model'):
        pool.add('birds', cfg, trained['cars'][1])
    with pytest.raises(ValueError, match='float16 needs a GPU'):
        AdapterPool('cpu', torch.float16)
    assert list(pool.tasks) == ['ade']
    with pytest.raises(ValueError, match='no task "birds" in the pool, which has ade'):
        pool.predict([('birds', images(folder)[0])])
    with pytest.raises(SampleError, match=r'^.*vit\.pth is not an image, or its beginning'):
        pool.predict([('ade', folder / 'vit.pth')])
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match='an image is a file, or an array'):
            pool.predict([('ade', wrong)])


def test_the_growth_of_memory_is_measured(trained, tmp_path):
    rows = list(measure_growth({name: trained[name][0] for name in ('birds', 'cars')}, tmp_path))
    assert rows[0].pool == rows[0].separate == rows[0].added
    assert rows[1].pool == rows[0].pool + rows[1].added and rows[1].separate > 1.9 * rows[0].separate
    # prompts of 12 blocks, a head of 3 classes, and the mean and deviation of the colours
    prompts = trained['cars'][0].model.backbone.prompt.num_tokens
    assert rows[1].added == 4 * (12 * prompts * 24 + 3 * (24 + 1) + 6)


# --- the tool --------------------------------------------------------------------------------------


@pytest.fixture
def tool(trained, folder, monkeypatch, capsys) -> Callable[..., tuple[int | str | None, str, str]]:
    """Runs a tool in this process, and gives the exit code or message and what it printed."""
    for name, (cfg, _) in trained.items():
        cfg.dump(folder / f'{name}.py')

    def call(*arguments: object, name: str = 'predict') -> tuple[int | str | None, str, str]:
        spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        try:
            code = module.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def task_options(trained: Tasks, folder: Path, *names: str) -> list[object]:
    return [word for name in names for word in ('--task', name, folder / f'{name}.py', trained[name][1])]


def test_the_tool_answers_two_tasks_and_writes_what_it_says(tool, trained, folder, tmp_path, make_pool):
    first, second, third = images(folder)
    code, printed, _ = tool(
        *task_options(trained, folder, 'ade', 'birds'), '--images', first, f'birds:{second}', f'ade:{third}',
        '--out', tmp_path / 'out', '--json', tmp_path / 'all.json', '--batch', 3, '--device', 'cpu')
    assert code is None
    answers = json.loads((tmp_path / 'all.json').read_text())
    requests = [('ade', first), ('birds', first), ('birds', second), ('ade', third)]
    assert [(each['task'], each['image']) for each in answers] == requests
    pool = make_pool('ade', 'birds')
    assert f'2 tasks on cpu in {pool.nbytes / 2**20:.1f} MiB' in printed
    for answer, sample in zip(answers, pool.predict(requests), strict=True):
        line, = (line for line in printed.splitlines() if line.startswith(f'{answer["task"]}  {answer["image"]}  '))
        if answer['task'] == 'birds':
            assert answer['label'] == int(sample.pred_label) and answer['class'] == f'class-{answer["label"]}'
            assert answer['score'] == pytest.approx(float(sample.pred_score.max()), abs=1e-5)
            assert line.endswith(f'{answer["class"]} {answer["score"]:.3f}')
            continue
        written = np.asarray(Image.open(answer['label_map']))
        assert np.array_equal(written, sample.pred_sem_seg.data[0].numpy())
        assert answer['label_map'] == str(tmp_path / f'out/ade/labels/{Path(answer["image"]).stem}.png')
        overlay = np.asarray(Image.open(answer['overlay']))
        assert overlay.shape == (96, 96, 3) and np.abs(overlay - cv2.imread(answer['image'])[..., ::-1]).max() > 20
        assert sum(answer['shares'].values()) == pytest.approx(1, abs=1e-4)
        assert next(iter(answer['shares'])) in line


def test_two_images_of_one_name_are_both_written(tool, trained, folder, tmp_path):
    image = images(folder)[0]
    copied = str(folder / 'classes/class-0' / Path(image).name)
    code, _, _ = tool(*task_options(trained, folder, 'ade', 'birds'), '--images', image, copied, '--probabilities',
                      '--out', tmp_path / 'out', '--json', tmp_path / 'all.json')
    assert code is None
    answers = json.loads((tmp_path / 'all.json').read_text())
    maps = [each['label_map'] for each in answers if each['task'] == 'ade']
    assert [str(Path(path).relative_to(tmp_path / 'out/ade/labels').parent) for path in maps] == [
        'data/images/validation', 'classes/class-0']
    for each in answers:
        if each['task'] == 'birds':
            assert sum(each['probabilities'].values()) == pytest.approx(1, abs=1e-4)
            assert each['probabilities'][each['class']] == each['score'] == max(each['probabilities'].values())


def test_folders_lists_and_patterns_are_predicted_under_their_paths(tool, trained, folder, tmp_path):
    first, second, third = (Image.open(image) for image in images(folder)[:3])
    for place in ('photos/a', 'photos/b/deep', 'photos/.hidden'):
        (tmp_path / place).mkdir(parents=True)
    first.save(tmp_path / 'photos/a/x.JPG', 'JPEG')
    second.save(tmp_path / 'photos/b/deep/x.jpg')
    third.save(tmp_path / 'photos/b/deep/x.png')
    first.save(tmp_path / 'photos/.hidden/no.jpg')
    (tmp_path / 'photos/notes.md').write_text('no image')
    out = tmp_path / 'photos/out'  # whose pictures are no images to predict
    for _ in range(2):
        code, _, _ = tool(*task_options(trained, folder, 'ade'), '--images', tmp_path / 'photos', '--out', out,
                          '--confidence', '--batch', 2)
        assert code is None
        written = sorted(str(path.relative_to(out / 'ade/labels')) for path in (out / 'ade/labels').rglob('*.png'))
        assert written == ['a/x.png', 'b/deep/x.jpg.png', 'b/deep/x.png.png']
    certain = np.asarray(Image.open(out / 'ade/confidence/a/x.png'))
    assert certain.dtype == np.uint8 and certain.shape == (96, 96) and certain.min() >= 255 // 150
    assert np.asarray(Image.open(out / 'ade/legend.png')).shape[0] > 20 * 150
    (tmp_path / 'some.txt').write_text('photos/a/x.JPG\nphotos/b/deep\n')
    for asked, number in ((tmp_path / 'some.txt', 3), (tmp_path / 'photos/b/**/*.jpg', 1)):
        tool(*task_options(trained, folder, 'ade'), '--images', f'ade:{asked}', '--json', tmp_path / 'all.json')
        assert len(json.loads((tmp_path / 'all.json').read_text())) == number
    code, _, _ = tool(*task_options(trained, folder, 'ade'), '--images', tmp_path / 'photos/.hidden', tmp_path)
    assert code is None
    (tmp_path / 'empty').mkdir()
    code, _, _ = tool(*task_options(trained, folder, 'ade'), '--images', tmp_path / 'empty')
    assert code == f'there are no images in {tmp_path / "empty"}'


def test_an_image_of_another_kind_than_in_training_is_refused(tool, trained, folder, tmp_path):
    dark = cv2.imread(images(folder)[0], cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 12
    cv2.imwrite(str(tmp_path / 'dark.png'), dark)
    code, _, _ = tool(*task_options(trained, folder, 'ade'), '--images', tmp_path / 'dark.png')
    assert '12 of 256 grays' in code and 'LoadBands' in code
    cfg = copy.deepcopy(trained['ade'][0])
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadBands', scale=(0, 3060), expected=('uint16', 1))
    cfg.dump(tmp_path / 'ade16.py')
    code, printed, _ = tool('--task', 'ade', tmp_path / 'ade16.py', trained['ade'][1], '--images',
                            tmp_path / 'dark.png', images(folder)[1], '--out', tmp_path / 'out')
    assert code.startswith('1 of 2') and '3 bands of uint8, and images were 1 of uint16 in training' in code
    assert f'ade  {tmp_path / "dark.png"}  ' in printed
    overlay = np.asarray(Image.open(next((tmp_path / 'out/ade/overlays').rglob('dark.png'))))
    assert overlay.max() > 150  # drawn as the pipeline reads it


def test_several_views_are_averaged_as_in_a_test(tool, trained, folder, tmp_path):
    image, cfg = images(folder)[0], copy.deepcopy(trained['ade'][0])
    cfg.model.test_cfg.keep_logits = False
    cfg.tta_model, cfg.default_scope = dict(type='LeanSegTTAModel'), 'mmseg'
    cfg.tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (64, 96)],
        [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0., 1.)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
    cfg.dump(tmp_path / 'tta.py')
    code, _, _ = tool('--task', 'ade', tmp_path / 'tta.py', trained['ade'][1], '--images', image, '--tta',
                      '--confidence', '--out', tmp_path / 'out')
    assert code is None
    from mmseg_gpt.apis import load_task
    from mmseg_gpt.segmentation.segmentor import probabilities
    task, mean = load_task('ade', cfg, trained['ade'][1], tta=True), 0
    prepared = task.prepare(image)
    with torch.no_grad():
        for view, sample in zip(prepared['inputs'], prepared['data_samples'], strict=True):
            data = task.model.data_preprocessor(dict(inputs=[view], data_samples=[sample]), False)
            rows = [band.clone() for band in task.model.original_rows(data['inputs'][0], sample.metainfo)]
            mean += probabilities(torch.cat(rows)) / 4
    assert np.array_equal(np.asarray(Image.open(next((tmp_path / 'out/ade/labels').glob('*.png')))), mean.argmax(2))
    certain = np.asarray(Image.open(next((tmp_path / 'out/ade/confidence').glob('*.png')))).astype(int)
    assert np.abs(certain - (255 * mean.amax(2)).round().numpy()).max() <= 1
    changed(cfg, tta_pipeline=None).dump(tmp_path / 'none.py')
    code, _, _ = tool('--task', 'ade', tmp_path / 'none.py', trained['ade'][1], '--images', image, '--tta')
    assert 'has no tta_pipeline' in code


@pytest.mark.slow
@pytest.mark.alone
def test_an_image_of_13400_pixels_a_side_is_predicted_in_little_memory(trained, folder, tmp_path):
    side, crop = 13400, 512
    cfg = copy.deepcopy(trained['ade'][0])
    cfg.model.test_cfg = dict(mode='slide', crop_size=(crop, crop), stride=(480, 480))
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    cfg.dump(tmp_path / 'large.py')
    pixels = np.random.default_rng(0).integers(0, 256, (side // 100, side // 100, 3), dtype=np.uint8)
    pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / 'large.png'), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    cv2.imwrite(str(tmp_path / 'corner.png'), pixels[:crop, :crop])
    size = pixels.nbytes
    del pixels
    labels = {}
    for name in ('corner', 'large'):
        process = subprocess.Popen([
            sys.executable, TOOLS / 'predict.py', '--task', 'ade', tmp_path / 'large.py', trained['ade'][1], '--images',
            tmp_path / f'{name}.png', '--out', tmp_path / 'out', '--device', 'cpu', '--confidence'],
            stdout=subprocess.PIPE, cwd=folder)
        said = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, said
        labels[name] = usage.ru_maxrss * 1024, cv2.imread(str(tmp_path / f'out/ade/labels/{name}.png'), -1)
    (small, corner), (peak, found) = labels['corner'], labels['large']
    assert '% labelled, ' in said
    # The image, labels and confidence, 1 GiB of logits and what a window needs: 3.0 GiB. All logits would be 100 GiB.
    assert peak - small < 6.5 * size, f'{(peak - small) / 2**20:.0f} MiB'
    assert found.shape == (side, side) and found.dtype == np.uint8
    assert np.array_equal(found[:480, :480], corner[:480, :480])


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--images', 'pets:IMAGE'], 'there is no task "pets"; the tasks are birds'),
    (['--images', 'nowhere.jpg'], 'there is no image nowhere.jpg'),
    (['--images', 'birds:nowhere.jpg'], 'there is no image nowhere.jpg'),
    (['--task', 'birds', 'a.py', 'CHECKPOINT', '--images', 'IMAGE'], 'two tasks are called birds'),
    (['--task', 'a/b', 'a.py', 'CHECKPOINT', '--images', 'IMAGE'], '"a/b" cannot be the name of a task'),
    (['--task', 'b', 'a.py', 'nowhere.pth', '--images', 'IMAGE'], 'there is no checkpoint nowhere.pth'),
    (['--task', 'b', 'nowhere', '--images', 'IMAGE'], 'has not made, give the config and the checkpoint'),
    (['--task', 'b', '--images', 'IMAGE'], '--task takes NAME CONFIG CHECKPOINT, or NAME and a work directory of'),
    (['--images', 'IMAGE', '--dataset-numbers'], '--dataset-numbers is about the label maps of --out'),
    (['--images', 'IMAGE', '--confidence'], '--confidence is about segmentations in --out'),
    (['--images', 'IMAGE', '--probabilities'], '--probabilities needs --out DIR for segmentations, or --json'),
    (['--images', 'IMAGE', '--json', 'nowhere/all.json'], 'there is no such folder'),
])
def test_the_tool_says_what_is_wrong_with_its_arguments(tool, trained, folder, arguments, message):
    image = images(folder)[0]
    words = dict(IMAGE=image, CHECKPOINT=str(trained['birds'][1]))
    for word, path in words.items():
        arguments = [argument.replace(word, path) for argument in arguments]
    code, _, error = tool(*task_options(trained, folder, 'birds'), *arguments)
    assert code == 2 and message in error


@pytest.mark.parametrize(('segments', 'options', 'message'), [
    (False, dict(tile=64), '--tile cuts the images of segmentations'),
    (False, dict(tile=None, out=Path('out'), json_file=Path('a.json')), '--out is for .*--json FILE to write classes'),
    (True, dict(tile=64, probabilities=True, json_file=Path('a.json')), '--probabilities of segmentations are written'),
    (False, dict(tile=None, probabilities=True, json_file=Path('a.json')), '')])
def test_an_option_without_a_meaning_for_any_task_is_refused(segments, options, message, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from predict import check_meaning
    pool = SimpleNamespace(tasks=dict(it=SimpleNamespace(segments=segments)))
    with pytest.raises(SystemExit, match=message) if message else nullcontext():
        check_meaning(pool, **options)


def test_the_tool_says_what_is_wrong_with_files_without_a_traceback(tool, trained, folder, tmp_path):
    image, birds = images(folder)[0], task_options(trained, folder, 'birds')
    (tmp_path / 'half.jpg').write_bytes(Path(image).read_bytes()[:500])
    code, printed, _ = tool(*birds, '--images', tmp_path / 'half.jpg', image, '--json', tmp_path / 'all.json')
    assert code.startswith('1 of 2 images could not be predicted:') and 'half.jpg' in code and 'truncated' in code
    assert f'birds  {image}  class-' in printed  # the others are
    both = task_options(trained, folder, 'birds', 'cars')
    code, _, _ = tool(*both, '--images', tmp_path / 'half.jpg', image)
    assert code.startswith('1 of 2 images could not be predicted:') and code.count('truncated') == 1
    code, printed, _ = tool(*birds, '--images', image, '--out', tmp_path / 'half.jpg')
    assert code.startswith('nothing can be written to the folder') and not printed  # before anything is computed
    broken, good = json.loads((tmp_path / 'all.json').read_text())
    assert 'half.jpg' in broken['error'] and 'label' not in broken and good['image'] == image
    swapped = ['--task', 'birds', folder / 'birds.py', trained['cars'][1]]
    code, _, _ = tool(*swapped, '--images', image)
    assert 'does not fit the model of this config' in code
    changed(trained['birds'][0], model__backbone__frozen=False).dump(tmp_path / 'full.py')
    code, _, _ = tool('--task', 'full', tmp_path / 'full.py', trained['birds'][1], '--images', image)
    assert 'is a full fine-tuning' in code


def test_the_tool_takes_the_vit_from_where_it_is(tool, trained, folder, tmp_path):
    moved = shutil.copy(folder / 'vit.pth', tmp_path / 'elsewhere.pth')
    cfg = changed(trained['birds'][0], model__backbone__init_cfg__checkpoint='nowhere/vit.pth')
    cfg.dump(tmp_path / 'birds.py')
    options = ['--task', 'birds', tmp_path / 'birds.py', trained['birds'][1], '--images', images(folder)[0]]
    code, _, _ = tool(*options)
    assert 'nowhere/vit.pth' in code
    code, printed, _ = tool(*options, '--vit', moved)
    assert code is None and 'class-' in printed
    code, _, _ = tool(*task_options(trained, folder, 'dogs'), '--images', images(folder)[0], '--vit', moved)
    assert code == '--vit is for checkpoints that leave the ViT out, and these hold it: leave it out'


def test_the_growth_of_memory_is_printed_and_written(tool, trained, folder, tmp_path):
    code, printed, _ = tool(*(folder / f'{name}.py' for name in ('ade', 'birds')), '--json', tmp_path / 'growth.json',
                            name='benchmark_serving')
    first, second = json.loads((tmp_path / 'growth.json').read_text())
    assert code is None and (first['task'], second['task']) == ('ade', 'birds')
    assert second['pool'] == first['pool'] + second['added'] < second['separate']
    line, = (line for line in printed.splitlines() if ' birds ' in line)
    assert f' {second["pool"] / 2**20:.2f} ' in line and f'{second["separate"] / second["pool"]:.2f}' in line
    code, _, error = tool(folder / 'ade.py', folder / 'ade.py', name='benchmark_serving')
    assert code == 2 and 'named twice' in error
    changed(trained['birds'][0], model__backbone__frozen=False).dump(tmp_path / 'full.py')
    code, _, _ = tool(tmp_path / 'full.py', name='benchmark_serving')
    assert 'task "full" is a full fine-tuning' in code


def test_the_speed_of_one_pass_is_measured_beside_task_by_task(tool, trained, folder, tmp_path):
    for name in ('ade', 'birds'):
        code, printed, _ = tool(folder / f'{name}.py', '--tasks', 2, 3, '--image', 32, '--rounds', 2, '--warmup', 0,
                                '--device', 'cpu', '--json', tmp_path / 'speed.json', name='benchmark_serving')
        assert code is None, code
        found = json.loads((tmp_path / 'speed.json').read_text())
        assert [(each['image'], each['tasks']) for each in found['times']] == [(32, 2), (32, 3)]
        prompts = trained[name][0].model.backbone.prompt.num_tokens
        for each in found['times']:
            assert each['tokens'] == 1 + 2 * 2 + prompts
            apart, together = (each['seconds'][way] for way in ('task by task', 'one pass'))
            ratios = [one / other for one, other in zip(apart['seconds'], together['seconds'])]
            assert together['speedup']['median'] == pytest.approx(np.median(ratios)) and len(ratios) == 2
            assert f' {each["tasks"] / together["median"]:.4g} |' in printed
    code, _, error = tool(folder / 'ade.py', folder / 'birds.py', '--tasks', 2, name='benchmark_serving')
    assert code == 2 and 'the tasks of one config' in error

"""The demo of classification: what it draws, its configs, what it leaves, and (slow) all of it."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import environment_of
from mmengine.config import Config
from PIL import Image
from shapes_run import CONFIG, draw, small_config, train, write_vit

from mmseg_gpt.checkpoints import read_file
from mmseg_gpt.lab.demo.shapes_report import collect, write_report
from mmseg_gpt.lab.drawn import SHAPES, draw_shape, make_image_folder
from mmseg_gpt.lab.drawn.image_folder import classes, image_path
from mmseg_gpt.lab.drawn.shapes import BLOBS, SMOOTH, blob

ROOT = Path(__file__).parents[1]
PRETRAINING = ROOT / 'configs/demo/vit_pretrain_shapes.py'
demo = runpy.run_path(str(ROOT / 'tools/demo.py'))


def shapes(seed: int, of_each: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3072) in [-1, 1] and labels (N,), ``of_each`` of each class."""
    images = [draw_shape(np.random.default_rng([seed, label, i]), outlines)
              for label, outlines in enumerate(SHAPES.values()) for i in range(of_each)]
    return np.stack(images).reshape(len(images), -1) / 127.5 - 1, np.repeat(np.arange(len(SHAPES)), of_each)


def test_the_same_seed_draws_the_same_image():
    one, same, other = (draw_shape(np.random.default_rng(seed), SHAPES['heart']) for seed in (3, 3, 4))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert one.shape == (32, 32, 3) and one.dtype == np.uint8 and one.std() > 10


def test_outlines_of_task_and_pretraining_are_all_different():
    masks = [draw_shape(np.random.default_rng(0), outlines, rough=SMOOTH)
             for outlines in (*SHAPES.values(), *map(blob, range(BLOBS)))]
    assert len({mask.tobytes() for mask in masks}) == len(SHAPES) + BLOBS


def test_a_linear_probe_on_pixels_fails():
    """Ridge regression, whichever its strength: the classes are told by shape, not by the value of some pixel."""
    (train_images, labels), (test_images, wanted) = shapes(0, 100), shapes(1, 40)
    kernel, targets = train_images @ train_images.T, np.eye(len(SHAPES))[labels]
    for strength in (1e2, 1e3, 1e4):
        weights = np.linalg.solve(kernel + strength * np.eye(len(kernel)), targets)
        assert (np.argmax(test_images @ train_images.T @ weights, axis=1) == wanted).mean() < 0.4


def test_the_folder_has_the_layout_of_an_image_folder_and_is_drawn_once(tmp_path):
    numbers = dict(pretraining=1, training=2, test=1, size=16, processes=1)
    assert make_image_folder(tmp_path, **numbers)
    for split, number in (('pretrain', 1), ('train', 2), ('test', 1)):
        assert sorted(path.name for path in (tmp_path / split).iterdir()) == classes(split)
        assert all(len(list(folder.glob('*.png'))) == number for folder in (tmp_path / split).iterdir())
    image = image_path(tmp_path, 'train', 'star', 1)
    before = image.read_bytes()
    assert Image.open(image).size == (16, 16) and not make_image_folder(tmp_path, **numbers)
    assert before != image_path(tmp_path, 'test', 'star', 0).read_bytes()
    image.unlink()
    assert make_image_folder(tmp_path, **numbers) and image.read_bytes() == before
    assert make_image_folder(tmp_path, **numbers, seed=1) and image.read_bytes() != before
    with pytest.raises(ValueError, match='size of at least 16'):
        make_image_folder(tmp_path, size=8)


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory) -> Path:
    """What the steps of the demo leave, from two iterations each."""
    folder = tmp_path_factory.mktemp('demo')
    draw(folder)
    cfg = small_config(CONFIG, folder, work_dir=str(folder / 'adapt'))
    write_vit(cfg, folder / 'vit.pth')
    train(cfg)
    for name, accuracy in (('test', 81.), ('test_linear', 75.5)):
        (folder / name).mkdir()
        (folder / name / 'metrics.json').write_text(json.dumps({
            'accuracy/top1': accuracy, 'parameters': dict(trained=1745, total=321329)}))
    return folder


def test_a_few_iterations_move_what_is_adapted_and_nothing_else(work_dir):
    vit, trained = torch.load(work_dir / 'vit.pth', weights_only=True), read_file(work_dir / 'adapt/adapted.pth')
    state = trained['state_dict']
    assert all(torch.equal(state[f'backbone.{name}'], weight) for name, weight in vit.items())
    assert (state['backbone.temperature'] != 1).all() and (state['backbone.prompt.gate_prior'] != -2).all()
    assert trained['meta']['dataset_meta']['classes'] == tuple(SHAPES)


def test_the_vit_is_pretrained_on_blobs_by_the_same_backbone(work_dir):
    cfg = small_config(PRETRAINING, work_dir, work_dir=str(work_dir / 'pretrained'))
    del cfg.model.backbone['init_cfg']
    before = train(cfg).model
    assert before.head.num_classes == BLOBS == cfg.data_preprocessor.num_classes
    assert all(parameter.requires_grad for parameter in before.parameters())
    adapted = small_config(CONFIG, work_dir, work_dir=str(work_dir / 'again'),
                           model__backbone__init_cfg__checkpoint=str(work_dir / 'pretrained/vit.pth'))
    after = train(adapted).model
    assert after.head.num_classes == len(SHAPES) == adapted.data_preprocessor.num_classes
    wanted = before.backbone.vit_state()
    assert all(torch.equal(weight, wanted[name]) for name, weight in after.backbone.vit_state().items())


def test_one_option_gives_the_linear_head_alone(work_dir):
    options = dict(setting.split('=') for setting in demo['LINEAR'])
    assert options == {'model.backbone.prompt': 'None', 'model.backbone.temperature': 'False'}
    cfg = small_config(CONFIG, work_dir, work_dir=str(work_dir / 'linear'), model__backbone__prompt=None,
                       model__backbone__temperature=False)
    trained = {name for name, parameter in train(cfg).model.named_parameters() if parameter.requires_grad}
    assert trained == {'head.fc.weight', 'head.fc.bias'}


def test_the_report_has_a_table_and_a_picture(work_dir, capsys):
    write_report(work_dir, collect(work_dir, dict(adapt=20., test=5.), 0), str(CONFIG), test=3)
    table, said = (work_dir / 'results.md').read_text(), capsys.readouterr().out
    assert table in said and str(work_dir / 'adapt/adapted.pth') in said
    for row in ('| chance | 10.0 |', '| linear head alone | 75.5 |', '| **gated prompts and linear head** | **81.0** |',
                '| in all | 25 |'):
        assert row in table
    picture = np.asarray(Image.open(work_dir / 'predictions.png'))[..., :3]
    assert picture.shape == (1200, 430, 3) and picture.std() > 30
    # Two iterations on a random ViT are wrong somewhere.
    assert (picture == (255, 0, 0)).all(axis=2).any()


def test_the_steps_are_ordinary_commands_that_give_each_other_what_they_need():
    steps = demo['make_shapes_steps'](Path(demo['SHAPES_HOME']), demo['FULL_SHAPES'])
    written = {str(output) for step in steps for output in step.outputs}
    cfg = Config.fromfile(CONFIG)
    assert cfg.model.backbone.init_cfg.checkpoint in written
    assert f'{cfg.train_dataloader.dataset.data_root}/manifest.json' in written
    assert {step.name for step in steps} == demo['FULL_SHAPES'].seconds.keys() == demo['QUICK_SHAPES'].seconds.keys()
    assert not any('data_root' in word for step in steps for word in step.command)
    moved = demo['make_shapes_steps'](Path('/elsewhere'), demo['QUICK_SHAPES'])
    assert all(any('/elsewhere' in word for word in step.command) for step in moved)


@pytest.mark.slow
def test_the_whole_demo_reaches_what_the_readme_says(tmp_path):
    result = subprocess.run([sys.executable, ROOT / 'tools/demo.py', '--classification', '--work-dir', tmp_path],
                            env=environment_of(), capture_output=True, text=True, cwd='/',
                            timeout=1200)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    assert (tmp_path / 'results.md').read_text() in result.stdout
    accuracy = json.loads((tmp_path / 'results.json').read_text())['accuracy']
    assert accuracy['gated'] > 70 and accuracy['linear'] > 65
    again = subprocess.run([sys.executable, ROOT / 'tools/demo.py', '--classification', '--work-dir', tmp_path],
                           env=environment_of(), capture_output=True, text=True, cwd='/')
    assert again.returncode == 0 and 'steps: 6 of 6 done before' in again.stdout

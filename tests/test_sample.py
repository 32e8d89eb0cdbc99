"""The drawn sample dataset: the same seed gives the same files, and the files are what mmsegmentation reads."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_gpt.lab.demo.report import majority_iou, plot_predictions, read_sample
from mmseg_gpt.lab.drawn import CLASSES, PALETTE, draw_scene, make_dataset

ROOT = Path(__file__).parent.parent


def scene(seed: int, size: int = 96):
    return draw_scene(np.random.default_rng(seed), size)


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


@pytest.fixture(scope='module')
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('sample')
    assert make_dataset(root, training=6, validation=3, size=48, seed=1)
    return root


def test_same_seed_same_scene():
    for first, second in zip(scene(3), scene(3)):
        assert np.array_equal(first, second)
    assert not np.array_equal(scene(3)[0], scene(4)[0])


@pytest.mark.parametrize('size', [32, 96])
def test_scene_has_the_right_types_and_range(size):
    image, labels = scene(0, size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.std() > 10
    assert labels.shape == (size, size) and labels.dtype == np.uint8 and labels.max() <= len(CLASSES)


def test_every_class_and_other_occur_and_none_rules():
    share = np.bincount(np.stack([scene(i)[1] for i in range(80)]).ravel(), minlength=len(CLASSES) + 1) / (80 * 96**2)
    assert share[0] > 0 and (share[1:] > 0.02).all() and share.max() < 0.4, dict(zip(('other', *CLASSES), share))


def test_colour_alone_does_not_tell_the_classes():
    """The nearest mean colour is right for few pixels, so what learns this dataset learns texture and shape."""
    images, labels = map(np.stack, zip(*(scene(i) for i in range(60))))
    scored = labels > 0
    means = np.stack([images[labels == i].mean(0) for i in range(1, len(CLASSES) + 1)])
    nearest = np.linalg.norm(images[scored][::17, None] - means, axis=2).argmin(1) + 1
    assert (nearest == labels[scored][::17]).mean() < 0.45


def test_layout(dataset):
    for split, count in (('training', 6), ('validation', 3)):
        images = sorted((dataset / 'images' / split).iterdir())
        labels = sorted((dataset / 'annotations' / split).iterdir())
        assert [p.name for p in images] == [f'{i:05d}.jpg' for i in range(count)]
        assert [p.name for p in labels] == [f'{i:05d}.png' for i in range(count)]
        assert cv2.imread(str(images[0])).shape == (48, 48, 3)
        assert cv2.imread(str(labels[0]), cv2.IMREAD_UNCHANGED).shape == (48, 48)
    files = content(dataset)
    assert files['images/training/00000.jpg'] != files['images/validation/00000.jpg']


def test_drawn_again_only_if_parameters_differ_or_a_file_is_missing(tmp_path):
    parameters = dict(training=3, validation=2, size=32, seed=5)
    seen = []
    assert make_dataset(tmp_path, **parameters, progress=lambda done, total: seen.append((done, total)), processes=2)
    assert seen == [(i, 5) for i in range(1, 6)]
    before = content(tmp_path)
    assert not make_dataset(tmp_path, **parameters)
    (tmp_path / 'images/training/00001.jpg').unlink()
    assert make_dataset(tmp_path, **parameters, processes=1)
    assert content(tmp_path) == before
    assert make_dataset(tmp_path, **{**parameters, 'training': 2})
    assert len(list((tmp_path / 'images/training').iterdir())) == 2
    assert make_dataset(tmp_path, **{**parameters, 'seed': 6})
    assert content(tmp_path)['images/training/00000.jpg'] != before['images/training/00000.jpg']


def test_drawn_again_after_an_interruption(tmp_path):
    make_dataset(tmp_path, 2, 1, 32)
    (tmp_path / 'manifest.json').write_text(json.dumps(dict(complete=False)))
    assert make_dataset(tmp_path, 2, 1, 32)


def test_refuses_to_delete_images_it_did_not_draw(tmp_path):
    theirs = tmp_path / 'images/training/mine.jpg'
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='choose another folder'):
        make_dataset(tmp_path, 2, 1, 32)
    assert theirs.read_bytes() == b'mine'


@pytest.mark.parametrize('wrong', [dict(size=31), dict(training=0), dict(validation=0)])
def test_refuses_what_cannot_be_drawn(tmp_path, wrong):
    with pytest.raises(ValueError, match='size of at least 32'):
        make_dataset(tmp_path / 'new', **wrong)
    assert not (tmp_path / 'new').exists()


def test_config_names_the_same_classes():
    from mmengine.config import Config
    cfg = Config.fromfile(ROOT / 'configs/demo/setr_pup_gpt_mae_sample.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert tuple(loader.dataset.metainfo.classes) == CLASSES
        assert tuple(map(tuple, loader.dataset.metainfo.palette)) == PALETTE
    assert cfg.model.decode_head.num_classes == len(CLASSES) == len(PALETTE)


def test_mmseg_reads_label_one_as_class_zero(dataset):
    from mmseg.datasets import BaseSegDataset
    from mmseg.utils import register_all_modules
    register_all_modules()
    read = BaseSegDataset(
        data_root=str(dataset), data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        metainfo=dict(classes=CLASSES, palette=PALETTE), reduce_zero_label=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)])
    assert len(read) == 6
    labels = cv2.imread(str(dataset / 'annotations/training/00000.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[0]['gt_seg_map'], np.where(labels == 0, 255, labels - 1.))


def test_tool(tmp_path, monkeypatch, capsys):
    arguments = ['make_sample_dataset', '--out', str(tmp_path), '--images', '2', '--val-images', '1', '--size', '32']
    for _ in range(2):
        monkeypatch.setattr('sys.argv', arguments)
        runpy.run_path(str(ROOT / 'tools/make_sample_dataset.py'), run_name='__main__')
    first, second = [line for line in capsys.readouterr().out.splitlines() if 'classes' in line]
    assert 'nothing drawn' in second and 'nothing drawn' not in first


def test_majority_iou_by_hand(tmp_path):
    for split, labels in (('training', [[1, 1], [1, 2]]), ('validation', [[1, 2], [2, 0]])):
        folder = tmp_path / 'annotations' / split
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / '00000.png'), np.array(labels, np.uint8))
    assert majority_iou(tmp_path, dict(training=1, validation=1)) == ('sky', pytest.approx(100 / 3))


def test_picture_shows_image_truth_and_prediction(dataset, tmp_path):
    image, labels, _ = sample = read_sample(dataset, dataset / 'annotations/validation', 0)
    assert image.shape == (48, 48, 3) and labels.shape == (48, 48)
    plot_predictions([sample] * 3, tmp_path / 'p.png')
    drawn = cv2.imread(str(tmp_path / 'p.png'))
    assert drawn.shape == (490, 1200, 3)
    colours = {tuple(c) for c in drawn.reshape(-1, 3)[:, ::-1]}
    assert {PALETTE[i - 1] for i in np.unique(labels) if i} <= colours

"""What datasets leave out of their folders, and take by mistake: said with its number and the option that helps."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from tiny import image_path, label_path, small_config, write_data

import mmseg_gpt.engine as engine
from mmseg_gpt.checks import data as checks
from mmseg_gpt.datasets import survey
from mmseg_gpt.datasets.left_out import left_out, not_taken
from mmseg_gpt.datasets.report import as_text

CLASSES = ('ant', 'bee', 'cat')


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), len(str(path)), np.uint8)).save(path)


def custom(root: Path, **options) -> object:
    """An image folder as mmpretrain reads it."""
    pytest.importorskip('mmpretrain')
    config = dict(type='CustomDataset', data_root=str(root), pipeline=[dict(type='LoadImageFromFile')], **options)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(config)


@pytest.fixture
def classes(tmp_path) -> Path:
    """Of 3 classes 16 images each, a quarter of each suffix."""
    for name in CLASSES:
        for suffix in ('.png', '.tiff', '.webp', '.JPG'):
            for i in range(4):
                draw(tmp_path / name / f'{i}{suffix}')
    return tmp_path


def test_images_of_other_suffixes_are_said_with_the_option_that_takes_them(classes):
    found = survey(custom(classes), 1)
    said, = found.problems
    assert found.pairs == 24 and '(24): ' in said and '.tiff (12)' in said and '.webp (12)' in said
    extensions = eval(said.partition('extensions=')[2])
    assert {'.png', '.jpg', '.tiff', '.webp'} < set(extensions)
    again = survey(custom(classes, extensions=extensions), 1)
    assert again.pairs == 48 and again.problems == [] and 'no problems' in as_text('train', again)


def test_images_in_wrong_places_hidden_ones_and_empty_classes_are_said(classes):
    draw(classes / 'loose.png')
    draw(classes / 'ant/._0.png')
    for name in ('.ipynb_checkpoints', 'empty'):
        (classes / name).mkdir()
    (classes / 'bee/notes.txt').touch()
    (classes / 'bee/phone.heic').touch()
    _, convert, loose, hidden = left_out(custom(classes))
    assert '.heic (1). Convert them' in convert
    assert 'in no folder of a class (1): loose.png' in loose
    assert 'taken for a class: remove them (1): .ipynb_checkpoints' in hidden
    first, second = not_taken(custom(classes))
    assert 'hidden images, which are not taken (1): ant/._0.png' in first
    assert '(2): .ipynb_checkpoints, empty' in second


def test_images_without_labels_may_lie_anywhere_but_in_hidden_folders(classes):
    draw(classes / 'loose.png')
    draw(classes / '.trash/old.png')
    suffix, hidden = left_out(custom(classes, with_label=False))
    assert '(24)' in suffix and '(1): .trash/old.png' in hidden


def test_a_list_of_images_says_itself_what_it_takes(classes):
    (classes / 'list.txt').write_text('ant/0.png 0\nbee/1.webp 1\n')
    dataset = custom(classes, ann_file='list.txt', metainfo=dict(classes=CLASSES))
    assert left_out(dataset) == []
    assert '(46): ant/0.JPG' in not_taken(dataset)[0] and 'not in' in not_taken(dataset)[0]


def segmentation(root: Path, **options) -> object:
    """The tiny dataset as mmsegmentation reads it."""
    config = dict(small_config().train_dataloader.dataset, data_root=str(root), **options)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(config)


@pytest.fixture
def pairs(tmp_path) -> Path:
    """3 pairs; beside them a webp, a TIFF, a depth map, and a hidden folder."""
    root = write_data(tmp_path / 'data', 3)
    images = image_path(root, 'training', 0).parent
    for name in ('new.webp', 'new.tif', '00000_depth.png', '00001.png', '.cache/00000.jpg'):
        draw(images / name)
    return root


def test_images_beside_others_are_said_with_the_suffix_that_takes_them(pairs):
    suffix, hidden = left_out(segmentation(pairs))
    assert '(2): ' in suffix and '.webp (1)' in suffix and "img_suffix='.tif' or '.webp'" in suffix
    assert '(1): .cache/00000.jpg' in hidden
    said, = not_taken(segmentation(pairs))
    assert '(2): 00000_depth.png, 00001.png' in said
    assert "img_suffix='.jpg'" in left_out(segmentation(pairs, img_suffix='.webp'))[0]


def test_label_maps_in_the_folder_of_the_images_are_no_images(tmp_path):
    root = write_data(tmp_path / 'data', 2)
    for i in range(2):
        shutil.move(label_path(root, 'training', i), root / f'images/training/map_{i:05d}.png')
    prefix = dict(img_path='images/training', seg_map_path='images/training')
    dataset = segmentation(root, data_prefix=prefix)
    assert left_out(dataset) == not_taken(dataset) == []


def test_a_list_of_pairs_says_itself_what_it_takes(pairs):
    (pairs / 'list.txt').write_text('00001\n')
    dataset = segmentation(pairs, ann_file='list.txt')
    assert left_out(dataset) == [] and '(7): ' in not_taken(dataset)[0]


def test_a_run_warns_and_starts(pairs, monkeypatch):
    shutil.rmtree(pairs / 'images/training/.cache')
    (pairs.parent / 'vit.pth').touch()
    monkeypatch.chdir(pairs.parent)
    said = []
    monkeypatch.setattr(checks, 'print_log', lambda text, logger, level: said.append(text))
    config = small_config()
    config.work_dir = 'work_dirs/small'
    engine.check_files(config, ('train_dataloader', 'val_dataloader'), pretrained=True)
    assert len(said) == 1 and said[0].startswith('train_dataloader: data/images/training: images left out')


def test_where_nothing_is_taken_the_option_is_named(tmp_path):
    pytest.importorskip('mmpretrain')
    draw(tmp_path / 'ant/0.webp')
    config = dict(type='CustomDataset', data_root=str(tmp_path), pipeline=[])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset, (said, ) = checks.build_dataset(config)
    assert dataset is None and "'.webp'" in said and '(1)' in said

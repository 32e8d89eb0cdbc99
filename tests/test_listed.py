"""The dataset of listed pairs: what it reads and refuses, and that checks, guards and outputs know its files."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from tiny import CLASSES, HEIGHT, ROOT, WIDTH, image_path, label_path, small_config, write_data, write_run

from mmseg_gpt.checks.data import build_dataset
from mmseg_gpt.datasets import GuardedDataset, SampleError, survey
from mmseg_gpt.datasets.folders import check_folders, overlooked_images
from mmseg_gpt.datasets.left_out import left_out, not_taken
from mmseg_gpt.datasets.predicted import output_names, own_files
from mmseg_gpt.segmentation import ListedPairs

NAMES = [f'class {i}' for i in range(CLASSES)]
PALETTE = [[i, 2 * i, 3 * i] for i in range(CLASSES)]
LOADED = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
IMAGES = [LOADED[0], LOADED[2]]
CHECKPOINT = 'work_dirs/small/adapted.pth'


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder with three training pairs, the last with names of its own, and their list."""
    write_data(tmp_path / 'data', 3)
    image_path(tmp_path / 'data', 'training', 2).rename(tmp_path / 'a, b.jpg')
    return write_list(tmp_path, ['data/images/training/00000.jpg,data/annotations/training/00000.png',
                                 'data/images/training/00001.jpg,data/annotations/training/00001.png',
                                 f'"{tmp_path / "a, b.jpg"}",{label_path(tmp_path / "data", "training", 2)}'])


def write_list(folder: Path, lines: list[str], header: str = 'image,mask') -> Path:
    (folder / 'train.csv').write_text('\n'.join([header, *lines, '']))
    return folder


def listed(data: Path, **options) -> ListedPairs:
    init_default_scope('mmseg')
    return DATASETS.build(dict(type='ListedPairs', data_root=str(data), ann_file='train.csv', reduce_zero_label=True,
                               metainfo=dict(classes=NAMES, palette=PALETTE), pipeline=LOADED) | options)


def test_files_are_read_wherever_they_lie(data, monkeypatch):
    dataset = listed(data)
    assert len(dataset) == 3 and dataset.metainfo['classes'] == NAMES and dataset.metainfo['palette'] == PALETTE
    for i in range(3):
        sample = dataset[i]['data_samples']
        label = np.array(Image.open(label_path(data / 'data', 'training', i)))
        assert (sample.gt_sem_seg.data.numpy()[0] == label - 1).all() and sample.metainfo['img_path'].endswith('.jpg')
    (data / 'train.csv').write_text((data / 'train.csv').read_text(), encoding='utf-8-sig')  # as Excel writes it
    monkeypatch.chdir(data)
    assert listed(data, data_root=None)[0]['inputs'].shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize('lines, header, said', [
    (['a.jpg,a.png'], 'images,masks', 'first line must be image,mask, not images,masks'),
    (['a.jpg,a.png', ',b.png'], 'image,mask', 'line 3: an image and a mask'),
    (['a, b.jpg,a.png'], 'image,mask', 'line 2: .*in quotes'),
    (['a.jpg,'], 'image,mask', r'line 2: a\.jpg has no mask.*take LoadAnnotations out of the pipeline'),
    (['a.jpg'], 'image,mask', r'line 2: a\.jpg has no mask')])
def test_wrong_lists_are_refused(tmp_path, lines, header, said):
    write_list(tmp_path, lines, header)
    with pytest.raises(ValueError, match=said):
        listed(tmp_path)
    views = dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=0.)], [LOADED[1]], [LOADED[2]]])
    if 'no mask' in said:
        with pytest.raises(ValueError, match=said):
            listed(tmp_path, test_mode=True, pipeline=[LOADED[0], views])
        info = listed(tmp_path, test_mode=True, pipeline=IMAGES).get_data_info(0)
        assert 'seg_map_path' not in info and info['img_path'] == str(tmp_path / 'a.jpg')
    with pytest.raises(FileNotFoundError, match=r'none\.csv'):
        listed(tmp_path, ann_file='none.csv')


def test_survey_knows_its_files(data):
    found = survey(listed(data), workers=1)
    assert (found.pairs, found.problems, found.notes) == (3, [], [])
    assert found.pixels.sum() + found.ignored == 3 * WIDTH * HEIGHT and found.images.min() == 3
    assert len(own_files(listed(data))) == 6


def test_files_that_are_not_there_are_named_once(data):
    label_path(data / 'data', 'training', 0).unlink()
    (data / 'a, b.jpg').unlink()
    dataset = listed(data)
    problems = check_folders(dataset)
    assert len(problems) == 2 and 'a, b.jpg' in problems[0] and '00000.png' in problems[1]
    assert all('train.csv' in problem for problem in problems)
    assert survey(dataset, workers=1).problems == problems
    assert overlooked_images(dataset) == left_out(dataset) == not_taken(dataset) == []


def test_check_before_a_run_names_the_list(tmp_path):
    init_default_scope('mmseg')
    (tmp_path / 'train.csv').write_text('image\n')
    config = dict(type='ListedPairs', data_root=str(tmp_path), ann_file='train.csv', metainfo=dict(classes=NAMES))
    assert 'train.csv: the first line must be image,mask' in build_dataset(ConfigDict(config))[1][0]


def test_guard_names_its_files(data):
    guarded = GuardedDataset(listed(data))
    assert guarded[0]['data_samples'].gt_sem_seg.shape == (HEIGHT, WIDTH)
    label_path(data / 'data', 'training', 1).write_bytes(b'')
    with pytest.raises(SampleError, match=r'annotations/training/00001\.png is empty'):
        guarded[1]
    Image.fromarray(np.full((HEIGHT, WIDTH), 77, np.uint8)).save(label_path(data / 'data', 'training', 2))
    with pytest.raises(SampleError, match=r'00002\.png'):
        guarded[2]


def test_predictions_have_names_of_their_own(data):
    (data / 'other').mkdir()
    image_path(data / 'data', 'training', 1).rename(data / 'other/00000.jpg')
    write_list(data, ['data/images/training/00000.jpg,', f'{data}/other/00000.jpg,'])
    names = output_names(listed(data, pipeline=IMAGES, test_mode=True))
    assert sorted(names.values()) == ['data/images/training/00000', 'other/00000']


def test_tool_counts_listed_pairs_and_finds_copies(data, monkeypatch):
    lines = (data / 'train.csv').read_text().splitlines()
    (data / 'val.csv').write_text('\n'.join([lines[0], lines[2]]))
    cfg = small_config()
    for name, file in (('train', 'train.csv'), ('val', 'val.csv'), ('test', 'val.csv')):
        source = cfg[f'{name}_dataloader'].dataset
        cfg[f'{name}_dataloader'].dataset = dict(
            type='ListedPairs', data_root=str(data), ann_file=file, reduce_zero_label=True, pipeline=source.pipeline,
            metainfo=dict(classes=NAMES, palette=PALETTE))
    monkeypatch.chdir(data)
    monkeypatch.syspath_prepend(ROOT / 'tools')
    cfg.dump('small.py')
    monkeypatch.setattr(sys, 'argv', ['check_dataset.py', 'small.py', '--workers', '1'])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / 'tools/check_dataset.py'), run_name='__main__')
    report = json.loads(Path('dataset_report.json').read_text())
    assert stopped.value.code == 1 and len(report['copies']) == 1
    assert report['splits']['train']['images'] == 3 and report['splits']['train']['problems'] == []
    assert [each['name'] for each in report['splits']['val']['classes']] == NAMES


def test_lists_of_classes_are_read_by_mmpretrain(tmp_path):
    """Absolute paths with spaces and other letters, as the lists of found images have."""
    images = [tmp_path / 'lily of the valley' / 'a 1.png', tmp_path / 'Löwenzahn/b.png']
    for image in images:
        image.parent.mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    (tmp_path / 'train.txt').write_text(f'{images[0]} 1\n{images[1]} 0\n')
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(dict(type='mmpretrain.CustomDataset', ann_file=str(tmp_path / 'train.txt'), metainfo=dict(
        classes=['Löwenzahn', 'lily of the valley']), pipeline=[]))
    assert [(dataset.get_data_info(i)['img_path'], dataset.get_data_info(i)['gt_label']) for i in range(2)] == [
        (str(images[0]), 1), (str(images[1]), 0)]
    assert check_folders(dataset) == [] and survey(dataset, workers=1).problems == []


@pytest.mark.slow
def test_run_with_listed_pairs(tmp_path):
    """Trains, tests with several views and writes label maps with the numbers of the files."""
    write_run(tmp_path)
    cfg = small_config()
    for split, name in (('training', 'train'), ('validation', 'val')):
        pairs = [f'{image_path(tmp_path / "data", split, i)},{label_path(tmp_path / "data", split, i)}'
                 for i in range(2)]
        (tmp_path / f'{name}.csv').write_text('\n'.join(['image,mask', *pairs]))
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.dataset = dict(type='ListedPairs', ann_file=f'{"train" if name == "train" else "val"}.csv',
                              reduce_zero_label=True, metainfo=dict(classes=NAMES, palette=PALETTE),
                              pipeline=loader.dataset.pipeline)
    cfg.dump(tmp_path / 'small.py')
    for command in (['train.py', 'small.py'],
                    ['test.py', 'small.py', CHECKPOINT, '--tta', '--out', 'maps', '--dataset-numbers'],
                    ['predict.py', '--task', 't', 'small.py', CHECKPOINT, '--images',
                     str(image_path(tmp_path / 'data', 'validation', 0)), '--out', 'said', '--dataset-numbers']):
        done = subprocess.run([sys.executable, ROOT / 'tools' / command[0], *command[1:]], cwd=tmp_path, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
    maps = [np.array(Image.open(path)) for path in (*(tmp_path / 'maps').rglob('*.png'), *(tmp_path / 'said').rglob(
        'labels/*.png'))]
    assert len(maps) == 3 and all(labels.shape == (HEIGHT, WIDTH) for labels in maps)
    assert min(labels.min() for labels in maps) >= 1 and max(labels.max() for labels in maps) <= CLASSES

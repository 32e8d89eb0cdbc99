"""Classification datasets: each read back from a small folder of its layout, and what is said when one is wrong."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cls_folders import (
    Splits,
    colour,
    make_cars,
    make_cub,
    make_dogs,
    make_flowers,
    make_nabirds,
    make_vtab,
    save_dogs_list,
    write_lines,
)
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from scipy.io import savemat

pytest.importorskip('mmpretrain')

from mmpretrain.datasets import CUB

import mmseg_gpt.classification.datasets  # noqa: F401
from mmseg_gpt.checks.missing import missing_files
from mmseg_gpt.datasets import SampleError
from mmseg_gpt.engine import Runner, check_files

ROOT = Path(__file__).parents[1]
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
# Serializing collects garbage, which takes a tenth of a second with all that is imported.
OPTIONS = dict(pipeline=PIPELINE, serialize_data=False)
VTAB = dict(type='VTABTask', num_classes=3)
# Each layout, the dataset class that reads it, and its number of classes.
LAYOUTS = {
    'cub': (make_cub, dict(type='CUB'), 200),
    'flowers': (make_flowers, dict(type='Flowers102'), 3),
    'cars': (make_cars, dict(type='StanfordCars'), 196),
    'cars in one folder': (lambda root: make_cars(root, in_one=True), dict(type='StanfordCars'), 196),
    'dogs': (make_dogs, dict(type='StanfordDogs'), 3),
    'nabirds': (make_nabirds, dict(type='NABirds'), 3),
    'vtab': (make_vtab, VTAB, 3),
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def build(root: Path, **options):
    """Builds a dataset of images in ``root``."""
    return DATASETS.build(dict(data_root=str(root), **OPTIONS, **options))


def options_of(name: str, splits: Splits, split: str) -> dict:
    """The options of a dataset in ``LAYOUTS``, in which a task of VTAB has fewer images than the protocol says."""
    options = LAYOUTS[name][1] | dict(split=split)
    return options | dict(num_images=len(splits[split])) if name == 'vtab' else options


def config(root: Path, heads_classes: int, *loaders: str, **dataset) -> Config:
    """A config of a linear head and of data loaders of one dataset; default one, to train."""
    dataset = dict(data_root=str(root), **OPTIONS, **dataset)
    loaders = loaders or ('train_dataloader', )
    head = dict(type='LinearClsHead', num_classes=heads_classes)
    return Config(dict(default_scope='mmpretrain', model=dict(head=head),
                       **{loader: dict(dataset=dataset) for loader in loaders}))


def refused(cfg: Config) -> str:
    """What is said before anything is started."""
    with pytest.raises(SystemExit) as stopped:
        check_files(cfg, tuple(name for name in cfg if name.endswith('loader')), pretrained=False)
    return str(stopped.value)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', LAYOUTS)
def test_every_image_is_read_back_with_its_label_and_split(name, tmp_path):
    make, _, classes = LAYOUTS[name]
    splits = make(tmp_path)
    for split, expected in splits.items():
        options = options_of(name, splits, split)
        dataset = build(tmp_path, **options)
        assert len(dataset) == len(expected) >= 6
        assert dataset.get_gt_labels().tolist() == [label for _, label in expected]
        for sample, (path, label) in zip(dataset, expected):
            assert Path(sample['data_samples'].img_path) == tmp_path / path
            assert sample['data_samples'].gt_label.tolist() == [label]
            pixels = sample['inputs'].numpy()[::-1].reshape(3, -1)  # OpenCV's order is BGR
            assert np.abs(pixels - colour(path).astype(float)[:, None]).max() <= 4, path
        assert dataset.test_mode == (split == 'test') or name == 'cub'  # which mmpretrain leaves to the config
    check_files(config(tmp_path, classes, **options), ('train_dataloader', ), pretrained=False)


def test_names_of_classes(tmp_path):
    make_dogs(tmp_path / 'dogs', classes=2)
    make_nabirds(tmp_path / 'birds', classes=4)
    make_vtab(tmp_path / 'vtab')
    assert build(tmp_path / 'dogs', type='StanfordDogs').metainfo['classes'] == ('Big-dog_0', 'Big-dog_1')
    assert build(tmp_path / 'birds', type='NABirds', split='test').metainfo['classes'] == tuple(
        f'Bird no. {number} (Adult male)' for number in (2, 10, 817, 1000))
    assert build(tmp_path / 'vtab', **VTAB, split='test').metainfo['classes'] == ('0', '1', '2')
    named = build(tmp_path / 'vtab', **VTAB, split='test', metainfo=dict(classes=['a', 'b', 'c']))
    assert named.metainfo['classes'] == ['a', 'b', 'c']
    assert build(tmp_path / 'dogs', type='StanfordDogs', classes=['x', 'y']).metainfo['classes'] == ('x', 'y')


def test_both_splits_of_nabirds_have_the_same_classes_even_if_one_lacks_some(tmp_path):
    make_nabirds(tmp_path, classes=3)
    parts = (tmp_path / 'train_test_split.txt').read_text().splitlines()
    write_lines(tmp_path / 'train_test_split.txt', [f'{line[:-1]}0' for line in parts[:6]] + parts[6:])
    train = build(tmp_path, type='NABirds')
    assert set(train.get_gt_labels()) == {1, 2}
    assert train.metainfo == build(tmp_path, type='NABirds', split='test').metainfo


def test_the_lists_of_vtab_must_have_the_protocols_numbers(tmp_path):
    make_vtab(tmp_path)
    for split, number in (('train800', 800), ('val200', 200), ('train800val200', 1000)):
        with pytest.raises(ValueError, match=rf'{split}\.txt has \d+ lines instead of {number}.*num_images'):
            build(tmp_path, split=split, **VTAB)
    assert len(build(tmp_path, split='test', **VTAB)) == 6
    write_lines(tmp_path / 'val200.txt', [f'images/val200/{i:06d}.jpg 0' for i in range(200)])
    assert len(build(tmp_path, split='val200', **VTAB)) == 200


# --- wrong files ----------------------------------------------------------------------------------


def broken(path: Path, line: int, text: str | None) -> None:
    """Replaces a line of a text file, counted from 1, or takes it away."""
    lines = path.read_text().splitlines()
    lines[line - 1:line] = [] if text is None else [text]
    write_lines(path, lines)


@pytest.mark.parametrize('file, line, text, words', [
    ('images.txt', 3, 'only-one', r'images\.txt, line 3: an identifier and a value are needed, not "only-one"'),
    ('images.txt', 4, '', r'images\.txt, line 4: an identifier'),
    ('images.txt', 2, '00000001-21dc-4d0c a.jpg', r'images\.txt, line 2: .* a second time, after .*line 1'),
    ('images.txt', 2, 'new 0002/a.jpg', r'images\.txt, line 2: new is not in image_class_labels\.txt'),
    ('image_class_labels.txt', 5, '0000000e-21dc-4d0c x2', r'image_class_labels\.txt, line 5: .* not "x2"'),
    ('image_class_labels.txt', 18, None, r'images\.txt, line 1: 00000001-21dc-4d0c is not in image_class_labels'),
    ('image_class_labels.txt', 1, '00000012-21dc-4d0c 99', r'image_class_labels\.txt, line 1: 99 is not in classes'),
    ('train_test_split.txt', 7, '00000007-21dc-4d0c 2', r'train_test_split\.txt, line 7: 1 \(train\) or 0 \(test\)'),
    ('train_test_split.txt', 7, None, r'images\.txt, line 7: 00000007-21dc-4d0c is not in train_test_split\.txt'),
    ('classes.txt', 5, '817', r'classes\.txt, line 5: an identifier and a value'),
])
def test_wrong_lists_of_nabirds(file, line, text, words, tmp_path):
    make_nabirds(tmp_path)
    broken(tmp_path / file, line, text)
    with pytest.raises(ValueError, match=words):
        build(tmp_path, type='NABirds')


@pytest.mark.parametrize('text', ['a.jpg', 'a.jpg x', 'a.jpg -1', 'a.jpg 3', 'a.jpg 1.0', ' 1', ''])
def test_wrong_lines_of_vtab(text, tmp_path):
    make_vtab(tmp_path)
    broken(tmp_path / 'val200.txt', 4, text)
    with pytest.raises(ValueError, match=rf'val200\.txt, line 4: .* from 0 to 2 are needed, not "{text}"'):
        build(tmp_path, **VTAB, split='val200')


def dogs(label: int) -> str:
    return f'n{label:08d}-Dog/a.jpg'


@pytest.mark.parametrize('files, labels, words', [
    ([dogs(1), dogs(1)], [1, 2], 'the labels must be 1, 2, ... with a folder each'),
    ([dogs(1), dogs(2)], [1, 1], 'entry 2: n00000002-Dog/a.jpg has the label 1, which is that of n00000001-Dog'),
    ([dogs(1), dogs(2)], [1, 3], 'the labels must be'),
    ([dogs(1), dogs(2)], [0, 1], 'the labels must be'),
    ([dogs(1), dogs(2), dogs(3)], [1, 2], 'file_list 3, labels 2'),
])
def test_wrong_lists_of_dogs(files, labels, words, tmp_path):
    make_dogs(tmp_path)
    save_dogs_list(tmp_path / 'lists/train_list.mat', files, labels)
    with pytest.raises(ValueError, match=f'train_list.mat.*{words}'):
        build(tmp_path, type='StanfordDogs')


def test_damaged_matlab_files(tmp_path):
    make_dogs(tmp_path)
    path = tmp_path / 'lists/train_list.mat'
    whole = path.read_bytes()
    for content in (b'', b'<html>', whole[:200], whole[:-50]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'train_list\.mat cannot be read'):
            build(tmp_path, type='StanfordDogs')
    savemat(path, dict(files=[1]))
    with pytest.raises(ValueError, match=r'train_list\.mat has no file_list, labels, only files'):
        build(tmp_path, type='StanfordDogs')


@pytest.mark.parametrize('kind', ['StanfordDogs', 'NABirds', 'VTABTask'])
def test_an_unknown_split(kind, tmp_path):
    with pytest.raises(ValueError, match=r'split must be one of .*test, got "val"'):
        build(tmp_path, type=kind, split='val', **dict(num_classes=3) if kind == 'VTABTask' else {})


# --- a held-out part ------------------------------------------------------------------------------


def part(root: Path, which: str, **options):
    """A part of the training images of the NABirds in ``root``."""
    dataset = dict(type='NABirds', data_root=str(root), **OPTIONS)
    return DATASETS.build(dict(type='held_out', part=which, dataset=dataset, **options))


def paths(dataset) -> list[str]:
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def test_the_parts_are_disjoint_complete_stratified_and_always_the_same(tmp_path):
    make_nabirds(tmp_path, classes=4, per_class=30)
    whole = build(tmp_path, type='NABirds')
    train, val = part(tmp_path, 'train'), part(tmp_path, 'val')
    assert sorted(paths(train) + paths(val)) == sorted(paths(whole)) and len(train) + len(val) == len(whole) == 80
    assert paths(val) == [path for path in paths(whole) if path in paths(val)], 'not in the order of the list'
    assert np.bincount(val.get_gt_labels()).tolist() == [2] * 4  # a tenth of 20
    assert train.metainfo == val.metainfo == whole.metainfo
    # Fixed, so that numbers of other machines and versions can be compared.
    assert [paths(whole).index(path) for path in paths(val)] == [6, 14, 34, 38, 40, 44, 61, 72]
    assert paths(part(tmp_path, 'val', seed=0)) == paths(val) != paths(part(tmp_path, 'val', seed=1))
    half = part(tmp_path, 'val', fraction=0.5)
    assert len(half) == 40 and set(paths(val)) < set(paths(half))


def test_at_least_one_image_of_a_class_on_each_side(tmp_path):
    make_nabirds(tmp_path, classes=3, per_class=6)
    parts = (tmp_path / 'train_test_split.txt').read_text().splitlines()
    keep = [0, 6, 7]  # one image of the first class, two of the second, none of the third
    write_lines(tmp_path / 'train_test_split.txt', [f'{p[:-1]}{int(i in keep)}' for i, p in enumerate(parts)])
    for fraction in (0.01, 0.99):
        assert part(tmp_path, 'val', fraction=fraction).get_gt_labels().tolist() == [1]
        assert part(tmp_path, 'train', fraction=fraction).get_gt_labels().tolist() == [0, 1]


@pytest.mark.parametrize('options, error, words', [
    (dict(part='test'), ValueError, 'part must be one of train, val, got "test"'),
    (dict(fraction=0), ValueError, 'fraction must be between 0 and 1, got 0'),
    (dict(fraction=1.), ValueError, 'fraction'),
    (dict(dataset=dict(type='RepeatDataset', times=2)), TypeError, 'not wrapped, got a RepeatDataset'),
])
def test_wrong_options_of_held_out(options, error, words, tmp_path):
    make_nabirds(tmp_path)
    plain = dict(type='NABirds', data_root=str(tmp_path))
    inner = options.pop('dataset', None)
    with pytest.raises(error, match=words):
        DATASETS.build(dict(type='held_out', dataset=dict(inner, dataset=plain) if inner else plain, **options))


def test_a_part_goes_through_the_runners_loader_with_lasting_workers_and_the_checks(tmp_path):
    make_nabirds(tmp_path, per_class=9)
    inner = dict(type='NABirds', data_root=str(tmp_path), pipeline=PIPELINE)
    loaders = {f'{which}_dataloader': dict(
        dataset=dict(type='held_out', part=which, fraction=0.3, dataset=inner), batch_size=2, num_workers=1,
        persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False)) for which in ('train', 'val')}
    cfg = Config(dict(default_scope='mmpretrain', **loaders))
    check_files(cfg, tuple(loaders), pretrained=False)
    seen = {}
    for name in loaders:
        loader = Runner.build_dataloader(cfg[name])
        assert loader.dataset.metainfo['classes'][0].startswith('Bird')
        for _ in range(2):  # epochs
            seen[name] = [sample.img_path for batch in loader for sample in batch['data_samples']]
        assert len(loader.dataset) == len(set(seen[name])) == (12 if name.startswith('train') else 6)
        assert seen[name] == paths(loader.dataset)
    assert not set(seen['train_dataloader']) & set(seen['val_dataloader'])

    (tmp_path / paths(loader.dataset)[0]).unlink()
    guarded = DATASETS.build(dict(type='GuardedDataset', dataset=cfg.val_dataloader.dataset))
    with pytest.raises(SampleError, match=r'\.jpg is not there'):
        guarded[0]
    shutil.rmtree(tmp_path / 'images')
    said = refused(cfg)
    assert said.count('NABirds') == 1 and 'not there, or empty: images\n' in said


# --- before a run ---------------------------------------------------------------------------------


# What one screen must name, if nothing is there: files, where from, and anything else.
SCREENS = {
    'cub': ('images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'https://data.caltech.edu/records/65de6-vp158'),
    'flowers': ('jpg', 'imagelabels.mat', 'setid.mat', 'https://www.robots.ox.ac.uk/~vgg/data/flowers/102'),
    'cars': ('car_ims', 'cars_annos.mat', 'https://ai.stanford.edu/~jkrause/cars/car_dataset.html', 'is down',
             'cars_test_annos_withlabels'),
    'dogs': ('Images', 'lists/train_list.mat', 'http://vision.stanford.edu/aditya86/ImageNetDogs'),
    'nabirds': ('images', 'classes.txt', 'https://dl.allaboutbirds.org/nabirds'),
    'vtab': ('train800val200.txt', 'https://github.com/ZhangYuanhan-AI/NOAH'),
}


@pytest.mark.parametrize('name', SCREENS)
def test_a_missing_dataset_is_one_screen(name, tmp_path):
    root = tmp_path / 'data/there'
    said = refused(config(root, LAYOUTS[name][2], 'train_dataloader', 'val_dataloader', **LAYOUTS[name][1]))
    for words in ('Nothing was started', f'ln -s /your/folder {root}', 'get:', 'put:', *SCREENS[name]):
        assert words in said
    assert said.count('looked in:') == 1 and len(said.splitlines()) < 16 and 'this is wrong' not in said
    assert max(map(len, said.splitlines())) < 140 + len(str(root))


@pytest.mark.parametrize('name, split, file, words', [
    ('cub', 'train', 'train_test_split.txt', 'train_test_split.txt'), ('cub', 'test', 'images', 'images'),
    ('flowers', 'trainval', 'setid.mat', 'setid.mat'), ('flowers', 'test', 'jpg', 'jpg'),
    ('cars', 'train', 'cars_train', 'cars_train'),
    ('cars', 'test', 'devkit/cars_test_annos_withlabels.mat', 'devkit/cars_test_annos_withlabels.mat'),
    ('cars in one folder', 'test', 'car_ims', 'car_ims'),
    ('dogs', 'test', 'lists/test_list.mat', 'lists/test_list.mat'), ('dogs', 'train', 'Images', 'Images'),
    ('nabirds', 'train', 'classes.txt', 'classes.txt'),
    ('vtab', 'val200', 'val200.txt', 'val200.txt'), ('vtab', 'test', 'images', 'images'),
])
def test_a_missing_file_of_a_layout_is_named_and_nothing_else(name, split, file, words, tmp_path):
    make, options, classes = LAYOUTS[name]
    make(tmp_path)
    path = tmp_path / file
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()  # and is empty
    else:
        path.unlink()
    said = refused(config(tmp_path, classes, **options | dict(split=split)))
    assert f'not there, or empty: {words}\n' in said and 'ln -s' in said and 'this is wrong' not in said


@pytest.mark.parametrize('name', LAYOUTS)
def test_images_that_are_listed_and_not_there_or_not_whole_are_found(name, tmp_path):
    make, _, classes = LAYOUTS[name]
    splits = make(tmp_path)
    split = 'train800val200' if name == 'vtab' else 'train'
    cfg = config(tmp_path, classes, **options_of(name, splits, split))
    gone, cut = (tmp_path / splits[split][i][0] for i in (3, 5))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-300])
    said = refused(cfg)
    assert 'that are not there (1): ' in said and said.count(gone.name) == 1
    assert f'{cut} cannot be decoded' in said and said.count('  * ') == 2


def test_a_single_missing_image_of_many_is_found_and_a_dangling_link_too(tmp_path):
    splits = make_dogs(tmp_path, classes=5, per_class=60)
    images = [tmp_path / path for path, _ in splits['train']]
    images[101].unlink()
    images[150].unlink()
    images[150].symlink_to('/absent/image.jpg')
    said = refused(config(tmp_path, 5, type='StanfordDogs'))
    assert f'Images: images of {tmp_path}/lists/train_list.mat that are not there (2): ' in said
    assert images[101].name in said and images[150].name in said


def test_a_wrong_list_is_said_before_a_run(tmp_path):
    make_nabirds(tmp_path)
    broken(tmp_path / 'images.txt', 2, 'x')
    assert f'NABirds cannot be built: ValueError: {tmp_path}/images.txt, line 2:' in refused(
        config(tmp_path, 3, type='NABirds'))


def test_a_label_that_no_class_name_has(tmp_path):
    make_cub(tmp_path)
    broken(tmp_path / 'image_class_labels.txt', 1, '1 201')
    assert 'the class number 200, but names of 200 classes' in refused(config(tmp_path, 200, type='CUB'))


@pytest.mark.parametrize('kind', ['mmpretrain.CUB', CUB])
def test_a_dataset_is_known_by_its_scoped_name_and_by_its_class(kind, tmp_path):
    assert missing_files(dict(type=kind, data_root=str(tmp_path))) == [
        'images', 'images.txt', 'image_class_labels.txt', 'train_test_split.txt']


def test_another_number_of_classes_than_the_heads(tmp_path):
    make_dogs(tmp_path)
    assert 'num_classes is 4, but the dataset has 3 classes' in refused(config(tmp_path, 4, type='StanfordDogs'))


# --- tools/check_dataset.py -----------------------------------------------------------------------


def check_dataset(cfg: Config, folder: Path, monkeypatch) -> tuple[int, dict]:
    """Runs the tool in this process, with one worker; returns its exit code and its report."""
    cfg.custom_imports = dict(imports=['mmseg_gpt.classification.datasets'], allow_failed_imports=False)
    cfg.dump(folder / 'config.py')
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(ROOT / 'tools')
    monkeypatch.setattr(sys, 'argv', ['check_dataset.py', 'config.py', '--workers', '1'])
    code = 0
    try:
        runpy.run_path(str(ROOT / 'tools/check_dataset.py'), run_name='__main__')
    except SystemExit as stopped:
        code = stopped.code or 0
    return code, json.loads((folder / 'dataset_report.json').read_text())


def test_the_dataset_tool_counts_the_images_of_each_class(tmp_path, monkeypatch, capsys):
    make_dogs(tmp_path / 'dogs')
    cfg = config(tmp_path / 'dogs', 3, 'train_dataloader', 'val_dataloader', type='StanfordDogs')
    cfg.val_dataloader.dataset.split = 'test'
    code, report = check_dataset(cfg, tmp_path, monkeypatch)
    assert code == 0 and report['copies'] == []
    for split, number in (('train', 4), ('val', 2)):
        found = report['splits'][split]
        assert found['images'] == 3 * number and found['problems'] == found['absent'] == []
        assert [(c['name'], c['images']) for c in found['classes']] == [(f'Big-dog_{i}', number) for i in range(3)]
    said = capsys.readouterr().out
    assert 'Big-dog_1' in said and '33.333%' in said and 'pixels' not in said
    assert (tmp_path / 'dataset_report.png').stat().st_size > 5000


def test_the_dataset_tool_finds_wrong_images_labels_and_copies(tmp_path, monkeypatch):
    splits = make_cub(tmp_path / 'cub')
    cfg = config(tmp_path / 'cub', 200, 'train_dataloader', 'val_dataloader', type='CUB')
    cfg.val_dataloader.dataset.split = 'test'
    (train, _), (copied, _), (cut, _), (gone, _) = splits['train'][:4]
    broken(tmp_path / 'cub/image_class_labels.txt', 1, '1 201')
    shutil.copy(tmp_path / 'cub' / copied, tmp_path / 'cub' / splits['test'][0][0])
    (tmp_path / 'cub' / cut).write_bytes(b'no image')
    (tmp_path / 'cub' / gone).unlink()
    code, report = check_dataset(cfg, tmp_path, monkeypatch)
    problems = report['splits']['train']['problems']
    assert code == 1 and len(problems) == 4 and len(report['copies']) == 1
    for words in (f'{train}: its class is 200; the dataset has 200 classes', f'{cut} is not an image', 'number 200',
                  f'not there (1): {gone.partition("/")[2]}'):
        assert any(words in problem for problem in problems)
    assert len(report['splits']['train']['absent']) == 197


def test_the_dataset_tool_numbers_classes_without_names(tmp_path, monkeypatch):
    make_flowers(tmp_path / 'flowers')
    _, report = check_dataset(config(tmp_path / 'flowers', 3, type='Flowers102', split='train'), tmp_path, monkeypatch)
    assert [(c['name'], c['images']) for c in report['splits']['train']['classes']] == [('0', 2), ('1', 2), ('2', 2)]

"""Checks of images and labels: of files, of folders, and of each sample of a dataset."""

import os
import pickle
import shlex
import shutil
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner.runner import Runner, _SlicedDataset
from mmengine.structures import PixelData
from PIL import Image
from tiny import CLASSES, HEIGHT, WIDTH, image_path, label_path, write_data
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from mmseg_gpt.datasets import (
    GuardedDataset,
    LabelRule,
    SampleError,
    batch_is_ignored,
    check_headers,
    check_values,
    inspect_pair,
    label_rule,
    source_datasets,
)
from mmseg_gpt.datasets.folders import check_folders, overlooked_images
from mmseg_gpt.datasets.pairs import UPRIGHT, orientation_of
from mmseg_gpt.datasets.reading import read_bands

ADE20K = Path(os.environ.get('MMSEG_GPT_ADE20K', Path(__file__).parents[2] / 'shared/ade20k_sample'))
NINE = LabelRule(CLASSES, reduce_zero_label=True)
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


@pytest.fixture
def data(tmp_path) -> Path:
    return write_data(tmp_path / 'data', 3)


@pytest.fixture
def pair(data) -> tuple[Path, Path]:
    return image_path(data, 'training', 0), label_path(data, 'training', 0)


def dataset(data: Path, kind: str = 'BaseSegDataset', **options) -> object:
    """A dataset of mmsegmentation with 9 classes, over the training pairs."""
    init_default_scope('mmseg')
    defaults = dict(type=kind, data_root=str(data), reduce_zero_label=True, pipeline=PIPELINE,
                    metainfo=dict(classes=[str(i) for i in range(CLASSES)]),
                    data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'))
    return DATASETS.build(defaults | options)


def save_label(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


# --- one pair --------------------------------------------------------------------------------------


def test_a_good_pair_has_no_problems_and_its_pixels_are_counted(pair):
    found = inspect_pair(*pair, NINE)
    assert found.problems == [] and found.size == (WIDTH, HEIGHT)
    values, counts = np.unique(np.array(Image.open(pair[1])), return_counts=True)
    assert found.pixels.sum() == WIDTH * HEIGHT and np.array_equal(found.pixels[values], counts)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_the_command_that_turns_images_leaves_what_predict_has_read(suffix, tmp_path, monkeypatch):
    exif, file = Image.Exif(), tmp_path / f'turned{suffix}'
    exif[0x0112] = 6
    Image.linear_gradient('L').convert('RGB').resize((64, 32)).save(file, exif=exif)
    before = mmcv.imfrombytes(file.read_bytes())
    assert inspect_pair(file).problems == []
    *_, program, _ = shlex.split(UPRIGHT)
    monkeypatch.setattr(sys, 'argv', ['-c', str(file)])
    exec(program, {})
    with Image.open(file) as image:
        assert image.size == (32, 64) == before.shape[1::-1] and orientation_of(image) == 1
    assert np.abs(mmcv.imfrombytes(file.read_bytes()).astype(int) - before).max() < 9


def test_bands_of_a_tiff_are_read_as_they_are_stored_however_it_is_turned(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for turn in (3, 6):
        tifffile.imwrite(tmp_path / 'a.tif', pixels, photometric='rgb', extratags=[(274, 'H', 1, turn)])
        assert np.array_equal(read_bands(tmp_path / 'a.tif'), pixels)


def test_real_pairs_of_ade20k_have_no_problems():
    images = sorted((ADE20K / 'images/validation').glob('*.jpg'))
    if not images:
        pytest.skip(f'no ADE20K images in {ADE20K}')
    for image in images:
        label = ADE20K / 'annotations/validation' / f'{image.stem}.png'
        assert inspect_pair(image, label, LabelRule(150, reduce_zero_label=True)).problems == []


@pytest.mark.parametrize('orientation, wrong', [(1, False), (0, False), (9, False), *((i, True) for i in range(2, 9))])
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_every_exif_orientation_but_upright_is_refused(orientation, wrong, suffix, pair):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = pair[0].with_suffix(suffix)
    Image.open(pair[0]).save(turned, exif=exif)
    problems = check_headers(turned, pair[1])
    assert [f'EXIF orientation {orientation}' in p for p in problems] == [True] * wrong
    if suffix != '.tif':  # which Pillow always turns
        assert check_headers(turned, pair[1], rotates=False) == []  # loaded as it is stored
    assert check_headers(turned) == []  # no label that could be misplaced


@pytest.mark.parametrize('rule, value, right', [
    (LabelRule(9), 8, True), (LabelRule(9), 9, False), (LabelRule(9), 255, True), (LabelRule(9), 254, False),
    (LabelRule(9, reduce_zero_label=True), 9, True), (LabelRule(9, reduce_zero_label=True), 10, False),
    (LabelRule(9, reduce_zero_label=True), 0, True), (LabelRule(9, reduce_zero_label=True), 255, True),
    (LabelRule(9, ignore_index=254), 254, True), (LabelRule(9, ignore_index=254), 255, False),
    (LabelRule(2, label_map={0: 0, 1: 255, 2: 1}), 2, True), (LabelRule(2, label_map={0: 0, 1: 255, 2: 1}), 3, False),
    (LabelRule(256), 255, True), (LabelRule(None), 254, True),
])  # yapf: disable
def test_label_values_against_classes_ignored_index_and_maps(rule, value, right):
    problems = check_values(np.bincount([value], minlength=256), rule, 'x.png')
    assert bool(problems) is not right
    assert all(f'x.png has the values {value} in 1 pixels' in problem for problem in problems)


@pytest.mark.parametrize('options', [{}, dict(reduce_zero_label=True), dict(label_map={0: 3, 3: 0, 5: 255}),
                                     dict(label_map={1: 0, 0: 1}, reduce_zero_label=True)])
def test_values_become_the_classes_that_loading_makes_of_them(options, tmp_path):
    from mmseg.datasets.transforms import LoadAnnotations
    save_label(tmp_path / 'x.png', np.arange(256, dtype=np.uint8).reshape(16, 16))
    info = dict(seg_map_path=str(tmp_path / 'x.png'), seg_fields=[], reduce_zero_label=False, label_map=None) | options
    loaded = LoadAnnotations().transform(info)['gt_seg_map']
    assert np.array_equal(LabelRule(9, **options).class_of_value(), loaded.ravel())


@pytest.mark.parametrize('mode, wrong', [('L', None), ('P', None), ('1', None), ('RGB', 'RGB'), ('RGBA', 'RGBA'),
                                         ('LA', 'LA'), ('F', 'F'), ('CMYK', 'CMYK')])
def test_modes_of_label_maps(mode, wrong, pair):
    path = pair[1].with_suffix('.tif')
    Image.open(pair[1]).point(lambda v: v > 4).convert(mode).save(path)
    problems = check_headers(pair[0], path)
    assert (problems == []) if wrong is None else (f'in {wrong} mode' in problems[0] and str(path) in problems[0])


def test_jpeg_in_a_tiff_is_refused_too(pair):
    path = pair[1].with_suffix('.tif')
    Image.open(pair[1]).save(path, compression='jpeg')
    assert check_headers(pair[0], path) == [
        f'{path} is a JPEG inside, which blurs label values; save label maps as PNG']


@pytest.mark.parametrize('dtype, name, value', [(np.uint16, 'x.png', 256), (np.uint16, 'x.tif', 65535),
                                                (np.int32, 'x.tif', 70000), (np.int32, 'x.tif', -1)])
def test_wide_labels_are_refused_only_if_their_values_would_wrap(dtype, name, value, pair):
    path = pair[1].with_name(name)
    values = np.full((HEIGHT, WIDTH), 7, dtype)
    save_label(path, values)
    assert inspect_pair(pair[0], path, NINE).problems == []
    values[0, 0] = value
    save_label(path, values)
    for problems in (check_headers(pair[0], path), inspect_pair(pair[0], path, NINE).problems):
        assert len(problems) == 1 and f'{path} has ' in problems[0] and f' {value},' in problems[0]


@pytest.mark.parametrize('which, kept', [(0, 0.02), (0, 0.3), (0, 0.95), (0, 0.999), (1, 0.02), (1, 0.3), (1, 0.95)])
def test_truncated_files_are_named(which, kept, pair):
    content = pair[which].read_bytes()
    pair[which].write_bytes(content[:int(len(content) * kept)])
    for problems in (check_headers(*pair), inspect_pair(*pair, NINE).problems):
        assert len(problems) == 1 and str(pair[which]) in problems[0]


def test_bytes_after_the_end_of_a_file_do_no_harm(pair):
    for path in pair:
        path.write_bytes(path.read_bytes() + b'trailing')
    assert inspect_pair(*pair, NINE).problems == []


def test_a_damaged_middle_is_found_by_decoding(pair):
    content = bytearray(pair[1].read_bytes())
    content[len(content) // 2] ^= 0xff
    pair[1].write_bytes(content)
    assert check_headers(*pair) == []
    assert str(pair[1]) in inspect_pair(*pair, NINE).problems[0]


def test_an_absent_file_is_said_to_be_absent(pair):
    pair[1].unlink()
    assert check_headers(*pair) == [f'{pair[1]} is not there']


# --- folders ---------------------------------------------------------------------------------------


def test_files_without_a_partner_are_counted_and_the_first_named(data):
    for i in range(2):
        image_path(data, 'training', i).unlink()
    label_path(data, 'training', 2).unlink()
    problems = check_folders(dataset(data))
    assert len(problems) == 2
    assert '(1): 00002.png' in problems[0] and 'not there' in problems[0]
    assert '(2): 00000.png, 00001.png' in problems[1] and 'without an image' in problems[1]


def test_a_name_that_is_not_utf8_is_a_problem_and_not_the_end_of_the_process(pair):
    image = pair[0].rename(pair[0].with_name(os.fsdecode(b'h\xe4user.jpg')))
    for found in (check_headers(image, pair[1]), inspect_pair(image, pair[1], NINE).problems):
        assert len(found) == 1 and r"h\udce4user.jpg' is not UTF-8" in found[0]


def test_a_list_of_images_may_leave_labels_alone(data):
    (data / 'list.txt').write_text('00001\n')
    assert check_folders(dataset(data, ann_file='list.txt')) == []


def test_without_labels_in_the_pipeline_none_are_missed(data):
    shutil.rmtree(data / 'annotations/training')
    assert check_folders(dataset(data, pipeline=[PIPELINE[0], PIPELINE[2]])) == []


def test_other_spellings_of_the_suffix_are_left_out_and_said(data):
    image_path(data, 'training', 0).rename(data / 'images/training/00000.JPG')
    image_path(data, 'training', 1).rename(data / 'images/training/00001.jpeg')
    said, = overlooked_images(dataset(data))
    assert '(2): 00000.JPG, 00001.jpeg' in said and 'not spelt .jpg' in said


# --- a guarded dataset -----------------------------------------------------------------------------


def wrapped(data: Path) -> dict[str, object]:
    """The ways datasets are wrapped, over the same three pairs; the second is at index 1 of each."""
    plain = dataset(data)
    return {'plain': plain, 'repeated': RepeatDataset(plain, 2), 'joined': ConcatDataset([plain, dataset(data)]),
            'cut': _SlicedDataset(plain, 2), 'cut and joined': _SlicedDataset(ConcatDataset([plain]), 3),
            'guarded twice': GuardedDataset(plain)}


WRAPPED = ['plain', 'repeated', 'joined', 'cut', 'cut and joined', 'guarded twice']


@pytest.mark.parametrize('how', WRAPPED)
def test_good_samples_pass_as_they_are(how, data):
    inner = wrapped(data)[how]
    guarded = GuardedDataset(inner)
    assert len(guarded) == len(inner) and guarded.metainfo == inner.metainfo
    assert guarded.get_data_info(1) == inner.get_data_info(1)
    samples = [inner[i] for i in range(len(inner))]  # RepeatDataset never ends
    for ours, theirs in zip(guarded, samples, strict=True):
        assert torch.equal(ours['inputs'], theirs['inputs'])
        assert torch.equal(ours['data_samples'].gt_sem_seg.data, theirs['data_samples'].gt_sem_seg.data)
    assert torch.equal(guarded[-1]['inputs'], inner[len(inner) - 1]['inputs'])
    with pytest.raises(IndexError):
        guarded[len(guarded)]


@pytest.mark.parametrize('number', [None, 1])
def test_the_runner_builds_it_from_a_config(number, data):
    plain = dict(type='RepeatDataset', times=2, dataset=dict(
        type='BaseSegDataset', data_root=str(data), reduce_zero_label=True, pipeline=PIPELINE, lazy_init=True,
        metainfo=dict(classes=['a', 'b']),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')))
    init_default_scope('mmseg')
    loader = Runner.build_dataloader(dict(
        batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), num_batch_per_epoch=number,
        dataset=dict(type='GuardedDataset', dataset=plain)))
    assert len(loader) == (number or 6) and loader.dataset.metainfo['classes'] == ['a', 'b']
    with pytest.raises(SampleError, match=r'00000\.png'):
        next(iter(loader))


@pytest.mark.parametrize('how', WRAPPED)
def test_a_wrong_label_is_named_through_every_wrapper(how, data):
    save_label(label_path(data, 'training', 1), np.full((HEIGHT, WIDTH), 44, np.uint8))
    guarded = GuardedDataset(wrapped(data)[how])
    guarded[0]
    with pytest.raises(SampleError, match=r'00001\.png.* 43, one less.*9 classes'):
        guarded[1]


@pytest.mark.parametrize('how', WRAPPED)
def test_a_failure_of_the_pipeline_names_both_files(how, data):
    inner = wrapped(data)[how]
    next(source_datasets(inner)).pipeline.transforms.insert(2, lambda results: 1 / 0)
    with pytest.raises(SampleError, match=r'00001\.jpg with .*00001\.png, cannot be loaded: ZeroDivisionError'):
        GuardedDataset(inner)[1]


def test_a_failure_is_explained_by_what_is_wrong_with_the_file(data):
    guarded = GuardedDataset(dataset(data))
    guarded[1]  # its headers are not read again
    image_path(data, 'training', 1).write_bytes(b'')
    with pytest.raises(SampleError, match=r'sample 1, .*\n  .*00001\.jpg is empty \(0 bytes\)'):
        guarded[1]
    image_path(data, 'training', 1).write_bytes(b'no image')
    with pytest.raises(SampleError, match=r'sample 1, \S* with \S*, cannot be loaded:\n  \S*00001\.jpg is not an'):
        guarded[1]


def test_headers_are_read_once_for_each_sample(data, monkeypatch):
    guarded = GuardedDataset(dataset(data))
    read = []
    monkeypatch.setattr('mmseg_gpt.datasets.guarded.check_headers', lambda *args: read.append(args[0]) or [])
    for _ in range(3):
        list(guarded)
    assert [Path(path).stem for path in read] == ['00000', '00001', '00002']


def test_all_views_of_a_test_time_augmentation_come_through(data):
    views = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=f, keep_ratio=True) for f in (0.5, 1.)],
        [dict(type='RandomFlip', prob=p) for p in (0., 1.)], [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])]
    guarded = GuardedDataset(dataset(data, pipeline=views))
    assert len(guarded[0]['inputs']) == 4
    save_label(label_path(data, 'training', 1), np.full((HEIGHT, WIDTH), 44, np.uint8))
    with pytest.raises(SampleError, match=r'00001\.png.*43'):
        guarded[1]
    save_label(label_path(data, 'training', 2), np.zeros((HEIGHT + 1, WIDTH), np.uint8))
    with pytest.raises(SampleError, match=r'00002\.png has 45x38 pixels'):
        guarded[2]


def test_it_survives_pickling_and_workers(data):
    guarded = pickle.loads(pickle.dumps(GuardedDataset(dataset(data))))
    samples = list(DataLoader(guarded, batch_size=None, num_workers=1))
    assert len(samples) == 3 and samples[0]['data_samples'].gt_sem_seg.data.shape == (1, HEIGHT, WIDTH)
    try:
        raise SampleError('00001.png is empty')
    except SampleError:  # what torch does with an error in a worker
        wrapper = pickle.loads(pickle.dumps(ExceptionWrapper(sys.exc_info(), 'in a worker')))
    with pytest.raises(SampleError, match=r'00001\.png is empty'):
        wrapper.reraise()


@pytest.mark.parametrize('classes, wrong', [(3, False), (2, True), (None, False)])
def test_class_numbers_of_mmpretrains_datasets(classes, wrong, data):
    pytest.importorskip('mmpretrain')
    import mmpretrain.datasets  # noqa: F401
    init_default_scope('mmpretrain')
    (data / 'list.txt').write_text('00000.jpg 0\n00001.jpg 2\n')
    names = None if classes is None else dict(classes=[str(i) for i in range(classes)])
    inner = DATASETS.build(dict(
        type='CustomDataset', data_root=str(data), data_prefix='images/training', ann_file='list.txt', metainfo=names,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
    guarded = GuardedDataset(inner)
    assert guarded[0]['data_samples'].gt_label == 0 and guarded.get_cat_ids(1) == [2]
    if wrong:
        with pytest.raises(SampleError, match=r'00001\.jpg: its class is 2; the dataset has 2 classes'):
            guarded[1]
    else:
        assert guarded[1]['data_samples'].gt_label == 2
    image_path(data, 'training', 0).write_bytes(b'')
    with pytest.raises(SampleError, match=r'00000\.jpg is empty'):
        GuardedDataset(inner)[0]


@pytest.mark.parametrize('samples', [[1, 2], [dict(x=1), (3, 4)], [dict(data_samples=None), dict(data_samples=[])]])
def test_samples_it_knows_nothing_of_pass(samples):
    assert list(GuardedDataset(samples)) == samples


def test_a_failing_dataset_it_knows_nothing_of_is_named_too():

    class Broken(list):

        def __getitem__(self, index):
            raise KeyError('lost')

    with pytest.raises(SampleError, match=r"sample 1, in Broken, cannot be loaded: KeyError: 'lost'"):
        GuardedDataset(Broken([1, 2]))[1]


def test_the_rule_of_a_dataset_is_as_it_is_configured(data):
    assert label_rule(RepeatDataset(dataset(data), 3)) == NINE
    assert label_rule(dataset(data, ignore_index=7, reduce_zero_label=False)) == LabelRule(9, 7)
    assert label_rule([1, 2]) == LabelRule()


# --- a batch ---------------------------------------------------------------------------------------


def segmented(*labels: int) -> list:
    from mmseg.structures import SegDataSample
    return [SegDataSample(gt_sem_seg=PixelData(data=torch.full((1, 2, 3), label))) for label in labels]


def test_a_batch_is_ignored_if_no_pixel_of_any_image_is_labelled():
    assert batch_is_ignored(segmented(255, 255), 255)
    assert not batch_is_ignored(segmented(255, 3), 255)
    assert not batch_is_ignored(segmented(255, 255), 0) and batch_is_ignored(segmented(0, 0), 0)
    almost = segmented(255, 255)
    almost[1].gt_sem_seg.data[0, 1, 2] = 0
    assert not batch_is_ignored(almost, 255)


def test_a_classification_batch_is_never_ignored():
    structures = pytest.importorskip('mmpretrain.structures')
    assert not batch_is_ignored([structures.DataSample().set_gt_label(255)], 255)
    assert not batch_is_ignored([], 255)

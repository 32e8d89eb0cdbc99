"""What testing and predicting write: names that do not collide, class numbers, probabilities and confusion matrices."""

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import run_fork
from mmengine.config import Config
from mmengine.structures import PixelData
from PIL import Image
from tiny import CLASSES, HEIGHT, ROOT, SPLITS, WIDTH, image_path, label_path, write_run

from mmseg_gpt.analysis.confusion import most_confused, shares, write_confusion
from mmseg_gpt.datasets import LabelRule
from mmseg_gpt.datasets.folders import list_files
from mmseg_gpt.datasets.polygons.images import ImageFinder
from mmseg_gpt.datasets.predicted import write_label_map
from mmseg_gpt.engine import errors_in_words
from mmseg_gpt.engine.confusion import ConfusionMetric
from mmseg_gpt.files import FolderError, listed_files, names_below

SIDES = ('left', 'right')
CHECKPOINT = 'work_dirs/small/adapted.pth'


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('files, folders, names', [
    (['a/x.jpg', 'b/x.jpg'], (), ['a/x', 'b/x']),
    (['a/x.jpg', 'a/y.jpg'], (), ['x', 'y']),
    (['a/x.jpg', 'a/y.jpg'], ['.'], ['a/x', 'a/y']),
    (['a/x.jpg', '/elsewhere/a/x.jpg'], (), None),
    (['a/x.jpg', 'b/x.jpg'], ['a'], ['a/x', 'b/x']),
    (['x.jpg', 'x.png', 'y.jpg'], (), ['x.jpg', 'x.png', 'y']),
    (['x.jpg', 'x.png', 'x.jpg.tif'], (), ['x.jpg', 'x.png', 'x.jpg.tif']),
    (['x.jpg', './x.jpg'], (), ['x', 'x']),
    (['a/b/x.jpg', 'a/x.jpg', 'a/b.png'], (), ['b/x', 'x', 'b']),
    ([], (), [])])
def test_no_two_images_have_one_name(files, folders, names):
    found = names_below(files, folders)
    assert len(set(found.values())) == len({os.path.abspath(file) for file in files})
    assert names is None or list(found.values()) == names
    assert not any(name.startswith(('/', '..')) for name in found.values())


def test_linked_folders_are_listed_but_not_in_circles(tmp_path):
    for name in ('elsewhere/sub/a.jpg', 'photos/b.jpg', 'photos/.hidden/c.jpg', 'photos/d.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'photos/linked').symlink_to('../elsewhere')
    for name, target in dict(up='..', back='../../photos').items():  # the second is a circle of two links
        (tmp_path / 'elsewhere/sub' / name).symlink_to(target)
    found = listed_files([str(tmp_path / 'photos')], {'.jpg'})
    assert [os.path.relpath(file, tmp_path) for file in found] == ['photos/b.jpg', 'photos/linked/sub/a.jpg']
    assert list_files(str(tmp_path / 'photos')) == {'b.jpg', '.hidden/c.jpg', 'd.txt', 'linked/sub/a.jpg'}
    images = ImageFinder(tmp_path / 'photos', without=tmp_path / 'photos/.hidden')
    assert sorted(path.name for path in images.all()) == ['a.jpg', 'b.jpg']


def test_a_folder_that_cannot_be_read_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    for name in ('data/a.jpg', 'data/locked/b.jpg', 'lost+found/c.jpg', '.Trashes/d.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    def listed(folder: str):  # as for a user without the right to; root has it, whatever a folder's mode
        if Path(folder).name in ('locked', 'lost+found', '.Trashes'):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, 'scandir', listed)
    for look in (lambda folder: listed_files([folder], {'.jpg'}), list_files,
                 lambda folder: ImageFinder(Path(folder), without=tmp_path / 'none')):
        with pytest.raises(FolderError, match=f'the folder {tmp_path}/data/locked cannot be read: Permission denied'):
            look(str(tmp_path))
    with pytest.raises(SystemExit, match='locked cannot be read'), errors_in_words():
        list_files(str(tmp_path))
    (tmp_path / 'data/locked').rename(tmp_path / 'data/open')
    assert list_files(str(tmp_path)) == {'data/a.jpg', 'data/open/b.jpg'}  # the others are the system's own


# --- the tools -------------------------------------------------------------------------------------


def run(folder: Path, tool: str, *arguments: object) -> str:
    """Runs a tool in a folder and returns what it printed; fails the test if it fails."""
    done = run_fork(folder, ROOT / f'tools/{tool}.py', *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def labels_in(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A trained run on two folders, each with a frame_0001, and two evaluators."""
    folder = write_run(tmp_path_factory.mktemp('outputs'))
    for path in (image_path, label_path):
        for split in SPLITS:
            for i, side in enumerate(SIDES):
                old = path(folder / 'data', split, i)
                (old.parent / side).mkdir()
                old.rename(old.parent / side / f'frame_0001{old.suffix}')
    cfg = Config.fromfile(folder / 'small.py')
    cfg.test_evaluator = [cfg.test_evaluator, dict(cfg.test_evaluator, iou_metrics=['mDice'], prefix='dice')]
    cfg.dump(folder / 'small.py')
    run(folder, 'train', 'small.py')
    return folder


@pytest.fixture(scope='module')
def tested(folder) -> str:
    """Tests at a single scale, and returns what was printed."""
    return run(folder, 'test', 'small.py', CHECKPOINT, '--out', 'maps', '--show-dir', 'shown')


def test_two_frames_of_one_name_are_both_written(folder, tested):
    for place in ('maps', 'shown'):
        assert sorted(str(file.relative_to(folder / place)) for file in (folder / place).rglob('*.*')) == [
            f'{side}/frame_0001.png' for side in SIDES]
    assert Image.open(folder / 'shown/left/frame_0001.png').size[0] >= 2 * 224, 'labels and predictions'
    assert not np.array_equal(*(labels_in(folder / f'maps/{side}/frame_0001.png') for side in SIDES))


def test_the_confusion_matrix_is_that_of_the_label_maps(folder, tested):
    counted = np.zeros((CLASSES, CLASSES), int)
    for side in SIDES:
        true = labels_in(folder / f'data/annotations/validation/{side}/frame_0001.png')
        np.add.at(counted, (true[true > 0] - 1, labels_in(folder / f'maps/{side}/frame_0001.png')[true > 0]), 1)
    rows = list(csv.reader((folder / 'work_dirs/small/confusion.csv').open()))
    assert rows[0][1:] == [row[0] for row in rows[1:]] and rows[0][1] == 'sky'
    written = np.array([row[1:] for row in rows[1:]], int)
    assert np.array_equal(written, counted)
    _, *rows = csv.reader((folder / 'work_dirs/small/confusion_shares.csv').open())
    ratios = np.array([row[1:] for row in rows], float)
    assert np.allclose(ratios, counted / counted.sum(1, keepdims=True), atol=1e-6)
    right = np.diag(counted)
    iou = right / (counted.sum(0) + counted.sum(1) - right)
    metrics = json.loads((folder / 'work_dirs/small/metrics.json').read_text())
    assert metrics['mIoU'] == pytest.approx(100 * iou.mean(), abs=0.006) and 'dice/mDice' in metrics
    assert metrics['classes'] == dict(declared=CLASSES, in_mIoU=CLASSES, not_in_mIoU=[], without_label=[])
    assert metrics['tested']['test_evaluator'] == Config.fromfile(folder / 'small.py').test_evaluator
    assert 'most confused: ' in tested and Image.open(folder / 'work_dirs/small/confusion.png').size[0] > 300


def test_the_numbers_of_the_dataset_are_one_more(folder, tested):
    run(folder, 'test', 'small.py', CHECKPOINT, '--out', 'asked', '--dataset-numbers', '--work-dir', 'another')
    for side in SIDES:
        own, asked = (labels_in(folder / f'{place}/{side}/frame_0001.png') for place in ('maps', 'asked'))
        assert np.array_equal(own + 1, asked) and own.max() < CLASSES


def test_the_labels_of_the_dataset_are_not_overwritten(folder, tested):
    labels = folder / 'data/annotations/validation'
    before = {path: path.read_bytes() for path in labels.rglob('*.png')}
    done = run_fork(folder, ROOT / 'tools/test.py', 'small.py', CHECKPOINT, '--out', labels, '--work-dir', 'own')
    assert done.returncode == 1 and 'would overwrite files of the dataset itself' in done.stdout.splitlines()[-1]
    assert {path: path.read_bytes() for path in labels.rglob('*.png')} == before


def test_images_without_labels_are_labelled(folder, tested):
    """With mmsegmentation's own metric, which only formats: --out has taken over what it formats."""
    cfg = Config.fromfile(folder / 'small.py')
    data = cfg.test_dataloader.dataset
    data.data_prefix = dict(img_path=data.data_prefix.img_path)
    data.pipeline = [step for step in data.pipeline if step.type != 'LoadAnnotations']
    cfg.test_evaluator = dict(type='IoUMetric', format_only=True)
    cfg.dump(folder / 'unlabelled.py')
    run(folder, 'test', 'unlabelled.py', CHECKPOINT, '--out', 'formatted')
    for side in SIDES:
        one, other = (labels_in(folder / f'{place}/{side}/frame_0001.png') for place in ('maps', 'formatted'))
        assert np.array_equal(one, other)
    assert not (folder / 'work_dirs/unlabelled/confusion.csv').exists()


def test_the_test_needs_no_training_images(folder, tested):
    images = folder / 'data/images/training'
    images.rename(folder / 'moved')
    try:
        run(folder, 'test', 'small.py', CHECKPOINT, '--show-dir', 'alone', '--work-dir', 'alone')
    finally:
        (folder / 'moved').rename(images)
    assert len(list((folder / 'alone').rglob('frame_0001.png'))) == 2


@pytest.mark.slow
def test_two_processes_write_the_same(folder, tested):
    subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
                    ROOT / 'tools/test.py', 'small.py', CHECKPOINT, '--out', 'maps2', '--show-dir', 'shown2',
                    '--work-dir', 'two'], cwd=folder, check=True)
    for side in SIDES:
        for place in ('maps', 'shown'):
            one, two = (folder / f'{place}{end}/{side}/frame_0001.png' for end in ('', '2'))
            assert one.read_bytes() == two.read_bytes()
    assert (folder / 'two/confusion.csv').read_text() == (folder / 'work_dirs/small/confusion.csv').read_text()


def test_what_another_test_left_is_kept(folder, tested):
    (folder / 'other.pth').write_bytes((folder / CHECKPOINT).read_bytes())
    for checkpoint in (CHECKPOINT, 'other.pth', 'other.pth'):
        printed = run(folder, 'test', 'small.py', checkpoint, '--work-dir', 'both')
    assert 'kept as' not in printed, 'the same test again'
    kept, new = (json.loads((folder / f'both/{name}').read_text()) for name in ('metrics.1.json', 'metrics.json'))
    assert (kept.pop('checkpoint'), new.pop('checkpoint')) == (CHECKPOINT, 'other.pth') and kept == new
    assert new['checkpoint_written'] == torch.load(folder / CHECKPOINT, weights_only=True)['meta']['time']
    assert (folder / 'both/confusion.1.csv').is_file() and not (folder / 'both/metrics.2.json').exists()


def test_predict_writes_as_test_does(folder, tested):
    frames = [f'data/images/validation/{side}/frame_0001.jpg' for side in SIDES]
    command = ['predict', '--task', 'tiny', 'small.py', CHECKPOINT, '--images', *frames, '--out']
    run(folder, *command, 'predicted', '--json', 'predicted.json', '--probabilities')
    answers = json.loads((folder / 'predicted.json').read_text())
    for side, answer in zip(SIDES, answers, strict=True):
        assert answer['label_map'] == f'predicted/tiny/labels/{side}/frame_0001.png'
        labels = labels_in(folder / answer['label_map'])
        assert np.array_equal(labels, labels_in(folder / f'maps/{side}/frame_0001.png'))
        probabilities = np.load(folder / answer['probabilities'], mmap_mode='r')
        assert probabilities.shape == (CLASSES, HEIGHT, WIDTH) and probabilities.dtype == np.float16
        probabilities = probabilities.astype(float)
        assert np.allclose(probabilities.sum(0), 1, atol=2e-3)
        chosen = np.take_along_axis(probabilities, labels[None], 0)[0]
        assert (chosen >= probabilities.max(0) - 1e-3).all()
        assert np.abs(labels_in(folder / answer['confidence']) - 255 * probabilities.max(0)).max() <= 0.51
    run(folder, *command, 'numbered', '--dataset-numbers')
    for side in SIDES:
        path = f'tiny/labels/{side}/frame_0001.png'
        assert np.array_equal(labels_in(folder / 'predicted' / path) + 1, labels_in(folder / 'numbered' / path))


def test_the_interface_of_mmsegmentation_gives_logits_if_asked(folder, monkeypatch):
    """On the demo's config, which has no test_pipeline."""
    from mmseg.apis import inference_model, init_model
    monkeypatch.chdir(folder)
    image = 'data/images/validation/left/frame_0001.jpg'
    assert 'test_pipeline' not in Config.fromfile('small.py')

    def answer(**options):
        return inference_model(init_model('small.py', CHECKPOINT, 'cpu', options), image)

    plain, logits = answer(), answer(**{'model.test_cfg.keep_logits': True})
    kept = answer(**{'model.test_cfg.keep_probabilities': True})
    with pytest.raises(AttributeError, match=r"cfg_options=\{'model.test_cfg.keep_logits': True\}"):
        print(plain.seg_logits)
    assert plain.keys() == ['pred_sem_seg'] and not hasattr(plain, 'seg_logits')
    assert torch.equal(plain.pred_sem_seg.data, logits.pred_sem_seg.data)
    expected = logits.seg_logits.data.softmax(0)
    assert kept.seg_probabilities.data.dtype == torch.float16 and kept.pred_sem_seg.data.shape == (1, HEIGHT, WIDTH)
    assert torch.allclose(kept.seg_probabilities.data.float(), expected, atol=1e-3)
    plain.seg_logits = PixelData(data=expected)
    assert torch.equal(plain.seg_logits.data, expected)


def test_a_pool_gives_probabilities(folder, monkeypatch):
    from mmseg_gpt.apis import AdapterPool
    monkeypatch.chdir(folder)
    image, stock = 'data/images/validation/left/frame_0001.jpg', Config.fromfile('small.py')
    stock.model.test_cfg.keep_logits = True  # as a stock segmentor answers
    pool = AdapterPool('cpu')
    pool.add('ours', 'small.py', CHECKPOINT)
    pool.add('stock', stock, CHECKPOINT)
    ours, theirs = (sample.seg_probabilities.data for sample in pool.predict(
        [('ours', image), ('stock', image)], probabilities=True))
    assert ours.shape == (CLASSES, HEIGHT, WIDTH) and torch.allclose(ours.float(), theirs.float(), atol=1e-3)
    files = [Path('kept.npy'), Path('stock.npy'), None]
    plain = pool.predict([('ours', image), ('stock', image), ('ours', image)], files)
    assert np.array_equal(np.load('kept.npy'), ours) and np.array_equal(np.load('stock.npy'), theirs)
    assert 'seg_probabilities' not in plain[2]


def test_two_images_are_not_written_under_one_name(folder, tmp_path, monkeypatch):
    from mmseg_gpt.apis import AdapterPool
    from mmseg_gpt.apis.answers import LabelWriter
    monkeypatch.chdir(folder)
    pool = AdapterPool('cpu')
    pool.add('tiny', 'small.py', CHECKPOINT)
    writer, frames = LabelWriter(pool.tasks['tiny'], tmp_path), sorted(map(str, Path('data/images').rglob('*.jpg')))
    sample, = pool.predict([('tiny', frames[0])])
    for _ in range(2):
        writer.write(frames[0], sample)
    with pytest.raises(ValueError, match='would overwrite'):
        writer.write(frames[1], sample)
    writer.write(frames[1], sample, 'another/name')
    assert len([*tmp_path.glob('*/**/*.png')]) == 4


def test_the_metric_does_not_overwrite_either(tmp_path):
    from mmseg_gpt.segmentation import PerClassIoUMetric
    metric = PerClassIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = dict(classes=['a', 'b'])
    map_of = dict(pred_sem_seg=dict(data=torch.ones(1, 4, 4).long()))
    for _ in range(2):
        metric.process({}, [dict(map_of, img_path='left/frame.jpg')])
    with pytest.raises(ValueError, match=r'left/frame\.jpg and right/frame\.jpg'):
        metric.process({}, [dict(map_of, img_path='right/frame.jpg')])


# --- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('rule, values', [
    (LabelRule(3), [0, 1, 2]), (LabelRule(3, reduce_zero_label=True), [1, 2, 3]),
    (LabelRule(3, label_map={0: 1, 1: 0}), [1, 0, 2]),
    (LabelRule(2, label_map={0: 255, 5: 0, 7: 1, 1: 255}), [5, 7])])
def test_the_values_of_classes_in_label_files(rule, values):
    assert rule.value_of_class(len(values)).tolist() == values
    assert rule.class_of_value()[values].tolist() == list(range(len(values)))


def test_a_class_made_of_two_has_no_value_of_its_own():
    with pytest.raises(ValueError, match='the classes 0 have no value'):
        LabelRule(2, label_map={2: 0}).value_of_class(2)


@pytest.mark.parametrize('classes, kind', [(150, np.uint8), (256, np.uint8), (257, np.uint16), (None, np.uint8)])
def test_label_maps_have_16_bits_where_8_are_too_few(classes, kind, tmp_path):
    labels = np.array([[0, (classes or 9) - 1]])
    write_label_map(labels, tmp_path / 'new/map.png', classes)
    written = np.asarray(Image.open(tmp_path / 'new/map.png'))
    assert np.array_equal(written, labels) and written.dtype == kind


# --- confusion matrices ----------------------------------------------------------------------------


def confusion_of(samples: list[dict], classes: list[str] | None) -> ConfusionMetric:
    metric = ConfusionMetric()
    metric.dataset_meta = dict(classes=classes) if classes else {}
    for sample in samples:
        metric.process({}, [sample])
    assert metric.evaluate(len(samples)) == {}
    return metric


def test_confusions_of_pixels_are_counted_by_hand():
    true = torch.tensor([[[0, 0, 1], [1, 2, 255]]]), torch.tensor([[[2, 2, 2]]])
    said = torch.tensor([[[0, 1, 1], [0, 2, 2]]]), torch.tensor([[[2, 0, 0]]])
    metric = confusion_of([dict(gt_sem_seg=dict(data=t), pred_sem_seg=dict(data=s)) for t, s in zip(true, said)],
                          ['sky', 'sea', 'sand'])
    assert metric.matrix.dtype == np.int64
    assert metric.matrix.tolist() == [[1, 1, 0], [1, 1, 0], [2, 0, 2]] and metric.classes == ['sky', 'sea', 'sand']


@pytest.mark.parametrize('classes, names', [(None, ['0', '1', '2']), (['a', 'b', 'c', 'd'], ['a', 'b', 'c', 'd'])])
def test_confusions_of_images_are_counted_by_hand(classes, names):
    pairs = [(0, 0), (0, 2), (0, 2), (1, 1), (2, 1)]
    metric = confusion_of([dict(gt_label=torch.tensor([t]), pred_label=torch.tensor([s])) for t, s in pairs], classes)
    assert metric.matrix[:3, :3].tolist() == [[1, 0, 2], [0, 1, 0], [0, 1, 0]] and metric.matrix.sum() == 5
    assert metric.classes == names


def test_of_images_no_class_is_ignored():
    samples = [dict(gt_label=torch.tensor([c]), pred_label=torch.tensor([c])) for c in (254, 255, 256)]
    assert confusion_of(samples, [str(c) for c in range(300)]).matrix.diagonal()[254:257].tolist() == [1, 1, 1]


def test_without_labels_there_is_no_matrix():
    assert confusion_of([dict(pred_sem_seg=dict(data=torch.zeros(1, 2, 2).long()))], ['a']).matrix is None
    assert confusion_of([dict(gt_label=torch.tensor([0, 1]), pred_label=torch.tensor([1]))], ['a']).matrix is None


def test_the_most_confused_are_said_and_written(tmp_path):
    matrix, names = np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]]), ['sky', 'sea', 'sand, wet']
    assert most_confused(matrix, names, 2) == ['25.0 % of sky is called sea', '25.0 % of sand, wet is called sky']
    assert most_confused(np.diag([1, 2]), ['a', 'b']) == []
    assert np.isnan(shares(matrix)[1]).all() and shares(matrix)[2].tolist() == [0.25, 0.25, 0.5]
    files = write_confusion(matrix, names, tmp_path / 'confusion.csv')
    assert [file.name for file in files] == ['confusion.csv', 'confusion_shares.csv', 'confusion.png']
    counts, ratios = (list(csv.reader(file.open())) for file in files[:2])
    assert counts[3] == ['sand, wet', '1', '1', '2'] and ratios[2] == ['sea', '', '', '']
    many = write_confusion(np.eye(41, dtype=int), list(map(str, range(41))), tmp_path / 'many.csv')
    assert [file.name for file in many] == ['many.csv', 'many_shares.csv']

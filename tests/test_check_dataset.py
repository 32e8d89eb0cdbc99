"""tools/check_dataset.py: what it finds, what it counts, and how it ends."""

import json
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, HEIGHT, ROOT, WIDTH, image_path, label_path, small_config, write_data

TOOL = ROOT / 'tools/check_dataset.py'


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with 3 training and 3 validation pairs and a config, as current folder."""
    write_data(tmp_path / 'data', 3)
    for i in range(3):  # labels of known content
        labels = np.full((HEIGHT, WIDTH), i + 1, np.uint8)
        labels[:2] = 0
        Image.fromarray(labels).save(label_path(tmp_path / 'data', 'training', i))
    small_config().dump(tmp_path / 'small.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TOOL.parent)  # as for a script
    return tmp_path


def run(monkeypatch, *options: str) -> tuple[int, dict]:
    """Runs the tool in this process, with one worker; returns its exit code and its report."""
    monkeypatch.setattr(sys, 'argv', ['check_dataset.py', 'small.py', '--workers', '1', *options])
    code = 0
    try:
        runpy.run_path(str(TOOL), run_name='__main__')
    except SystemExit as stopped:
        code = stopped.code or 0
    return code, json.loads(Path('dataset_report.json').read_text())


def test_a_sound_dataset_is_counted(folder, monkeypatch, capsys):
    code, report = run(monkeypatch)
    assert code == 0 and report['copies'] == []
    assert list(report['splits']) == ['train', 'val']  # test is the same as val
    train = report['splits']['train']
    assert train['images'] == 3 and train['problems'] == []
    assert train['sizes'] == dict(width=[WIDTH] * 3, height=[HEIGHT] * 3)
    assert [c['pixels'] for c in train['classes']] == [WIDTH * (HEIGHT - 2)] * 3 + [0] * 6
    assert [c['images'] for c in train['classes']] == [1] * 3 + [0] * 6
    assert train['absent'] == ['brick', 'paving', 'tree', 'ball', 'house', 'zebra']
    assert train['ignored_share'] == pytest.approx(2 / HEIGHT)
    val = report['splits']['val']
    assert sum(c['pixels'] for c in val['classes']) == round(3 * WIDTH * HEIGHT * (1 - val['ignored_share']))
    said = capsys.readouterr().out
    assert 'classes that never occur (6)' in said and f'{WIDTH * (HEIGHT - 2):,}' in said and 'sky' in said
    assert cv2.imread('dataset_report.png').std() > 10


def test_every_problem_is_found_and_the_exit_code_is_1(folder, monkeypatch, capsys):
    data = folder / 'data'
    shutil.copy(image_path(data, 'training', 0), image_path(data, 'validation', 2))
    Image.fromarray(np.full((HEIGHT, WIDTH), 77, np.uint8)).save(label_path(data, 'training', 2))
    image_path(data, 'training', 1).write_bytes(b'')
    label_path(data, 'validation', 0).unlink()
    image_path(data, 'validation', 1).rename(data / 'images/validation/00001.JPG')
    code, report = run(monkeypatch)
    assert code == 1
    train, val = (report['splits'][split]['problems'] for split in ('train', 'val'))
    assert len(train) == 2 and '00001.jpg is empty' in train[0] and '00002.png has the values 77' in train[1]
    assert len(val) == 3 and [any(words in p for p in val) for words in (
        'not there (1): 00000.png', 'without an image', 'not spelt .jpg (1): 00001.JPG')] == [True] * 3
    assert report['copies'] == ['data/images/validation/00002.jpg is the training image data/images/training/00000.jpg']
    said = capsys.readouterr().out
    assert 'problems (2)' in said and 'another split (1)' in said


def test_a_training_image_in_validation_is_reason_enough_for_exit_code_1(folder, monkeypatch):
    shutil.copy(image_path(folder / 'data', 'training', 0), image_path(folder / 'data', 'validation', 2))
    assert run(monkeypatch)[0] == 1
    assert run(monkeypatch, '--split', 'val')[0] == 0


@pytest.mark.parametrize('options, splits', [(('--split', 'val'), ['val']), (('--split', 'test'), ['test']),
                                             (('--split', 'train'), ['train'])])
def test_one_split(options, splits, folder, monkeypatch):
    code, report = run(monkeypatch, *options)
    assert code == 0 and list(report['splits']) == splits and len(report['splits'][splits[0]]['classes']) == CLASSES


def test_images_without_labels_are_checked_too(folder, monkeypatch):
    """As in pretraining, with a dataset of mmpretrain."""
    pytest.importorskip('mmpretrain')
    config = ROOT / 'configs/demo/mae_pretrain_sample.py'
    shutil.copy(config, 'small.py')
    image_path(folder / 'data', 'training', 1).write_bytes(b'no image')
    code, report = run(monkeypatch, '--cfg-options', 'train_dataloader.dataset.data_root=data')
    train = report['splits']['train']
    assert code == 1 and train['images'] == 3 and '00001.jpg is not an image' in train['problems'][0]
    assert train['classes'] == [] and train['ignored_share'] is None and not Path('dataset_report.png').exists()


def test_what_is_missing_is_said_before_anything_is_done(folder, monkeypatch):
    shutil.rmtree(folder / 'data/images')
    monkeypatch.setattr(sys, 'argv', ['check_dataset.py', 'small.py'])
    with pytest.raises(SystemExit, match='no files in images/training'):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert not Path('dataset_report.json').exists()


@pytest.mark.parametrize('options', [('--workers', '0'), ('--out', 'report.txt'), ('--out', 'absent/report.json')])
def test_wrong_arguments(options, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['check_dataset.py', 'small.py', *options])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert stopped.value.code == 2 and options[0] in capsys.readouterr().err


def test_ctrl_c_ends_it_without_a_traceback_a_report_or_a_process_left(folder):
    data = folder / 'data'
    for i in range(3, 3000):
        for path in (image_path, label_path):
            path(data, 'training', i).symlink_to(path(data, 'training', 0))
    process = subprocess.Popen([sys.executable, TOOL, 'small.py', '--workers', '2'], text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    until = time.monotonic() + 60
    while len(children.read_text().split()) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    workers = children.read_text().split()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and 'nothing was written' in said and 'Traceback' not in said
    assert len(workers) == 2 and not any(Path('/proc', worker).exists() for worker in workers)
    assert not Path('dataset_report.json').exists()

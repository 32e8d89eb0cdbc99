"""Large images: tiles give the labels of the whole image, in memory that does not grow; GeoTIFFs keep their place."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, environment_of
from made_tasks import CLASSES, PALETTE, TILES, drawn, made_task, write_geotiff
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_gpt.apis import ServedTask
from mmseg_gpt.apis.answers import LabelWriter, as_line
from mmseg_gpt.apis.rasters import can_stream, is_georeferenced
from mmseg_gpt.apis.tiles import Pixels, TaskLabeller, Tiling, logits_in_tiles, predict_in_tiles
from mmseg_gpt.datasets import SampleError, check_headers
from mmseg_gpt.datasets.headers import read_header
from mmseg_gpt.export import Choices, FileLabeller, Program, onnx_file
from mmseg_gpt.export.measure import answer_by
from mmseg_gpt.export.write import describe, left_to_caller
from mmseg_gpt.segmentation import segmentor


def whole(task: ServedTask, image: np.ndarray) -> torch.Tensor:
    """The labels (H, W) by mmsegmentation's own sliding window."""
    task.model.test_cfg.keep_logits = True
    try:
        with torch.no_grad():
            return task.predict([task.prepare(image)])[0].pred_sem_seg.data[0]
    finally:
        task.model.test_cfg.keep_logits = False


@pytest.fixture(scope='module')
def task(tmp_path_factory) -> ServedTask:
    return made_task(tmp_path_factory.mktemp('plain'))


@pytest.fixture(scope='module')
def padding_task(tmp_path_factory) -> ServedTask:
    """A task that pads images to multiples of 8 pixels."""
    return made_task(tmp_path_factory.mktemp('padding'), padded=True)


@pytest.mark.parametrize('size, which', [((75, 97), 'task'), ((32, 90), 'task'), ((20, 25), 'task'),
                                         ((75, 97), 'padding_task')])
@pytest.mark.parametrize('strip', [0, 50 * 32 * 9 * 4, 2**28])
def test_own_windows_give_the_labels_of_the_whole_image(size, which, strip, request):
    task, image = request.getfixturevalue(which), drawn(*size)
    labeller, covered, found = TaskLabeller(task), np.zeros(size, int), torch.zeros(size, dtype=torch.long)
    assert labeller.slides
    for rows, columns, logits in logits_in_tiles(labeller, Pixels(image), strip):
        covered[rows, columns] += 1
        found[rows, columns] = logits.argmax(2)
    expected = whole(task, image)
    assert (covered == 1).all() and torch.equal(found, expected) and len(expected.unique()) > 2


RULES = [dict(size_divisor=8), dict(size_divisor=48), dict(size=(64, 64)), dict(size_divisor=16, crop=24)]


@pytest.fixture(params=RULES, ids=str)
def odd_task(padding_task, request, monkeypatch) -> ServedTask:
    """A task whose windows lie in the padding of images, some of them as a whole, or reach beyond it."""
    rule = dict(request.param)
    crop = rule.pop('crop', 32)
    monkeypatch.setitem(padding_task.model.test_cfg, 'crop_size', (crop, crop))
    monkeypatch.setattr(padding_task.model.data_preprocessor, 'test_cfg', rule)
    return padding_task


def test_windows_in_the_padding_give_the_labels_of_the_whole_image(odd_task):
    for size in ((20, 57), (33, 39)):
        image = drawn(*size)
        assert torch.equal(predict_in_tiles(TaskLabeller(odd_task), image).pred_sem_seg.data[0], whole(odd_task, image))


def as_file(task: ServedTask, choices: Choices, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every ONNX file be that of a task, run by torch."""
    program = Program(task.model, 'logits', choices.preprocess, choices.layout, fold=False)

    def run(_: object, images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return dict(logits=program(torch.from_numpy(images)).numpy())

    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(type='tensor(uint8)' if choices.preprocess else 'tensor(float)',
                                            shape=['batch', 'height', 'width', 'channels'])],
        get_outputs=lambda: [SimpleNamespace(name='logits', shape=['batch', 9, 'height', 'width'])],
        get_modelmeta=lambda: SimpleNamespace(custom_metadata_map=describe(task, choices, None)))
    monkeypatch.setattr(onnx_file, 'session_of', lambda *_, **__: session)
    monkeypatch.setattr(onnx_file, 'run', run)


@pytest.mark.parametrize('odd_task', [RULES[0], RULES[1], RULES[3]], ids=str, indirect=True)
@pytest.mark.parametrize('choices', [Choices(), Choices(preprocess=True, layout='nhwc')], ids=['floats', 'bytes'])
def test_a_file_pads_as_the_model_does(odd_task, choices, monkeypatch):
    as_file(odd_task, choices, monkeypatch)
    rule = odd_task.model.data_preprocessor.test_cfg
    assert any('pad images' in said for said in left_to_caller(odd_task)) == (rule != RULES[0])  # whole patches
    for mode, size in (('slide', (20, 57)), ('slide', (33, 39)), ('whole', (20, 39))):
        monkeypatch.setitem(odd_task.model.test_cfg, 'mode', mode)
        image = drawn(*size)
        labeller, model = FileLabeller('file.onnx'), TaskLabeller(odd_task)
        assert labeller.windows(size) == model.windows(size)
        found = [dict(((rows.start, columns.start), logits) for rows, columns, logits in logits_in_tiles(
            each, Pixels(image), 2**28)) for each in (labeller, model)]
        ours, theirs = (torch.cat([each[place].clone() for place in sorted(each)]) for each in found)
        # In bytes the padding is rounded, except that to whole patches, which the file adds itself.
        bound = 0.05 if choices.preprocess and odd_task.model.data_preprocessor.test_cfg != RULES[0] else 1e-4
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound * theirs.std().item())


def test_a_file_resizes_as_the_pipeline_does(tmp_path, monkeypatch):
    task, image = made_task(tmp_path, resize=True, padded=True, **TILES), drawn(50, 90)
    as_file(task, Choices(preprocess=True, layout='nhwc'), monkeypatch)
    for mode, tiling in (('slide', None), ('whole', None), ('slide', Tiling(40))):
        monkeypatch.setitem(task.model.test_cfg, 'mode', mode)
        found = FileLabeller('file.onnx', tiling).label(image)
        wanted = predict_in_tiles(TaskLabeller(task, tiling), image).pred_sem_seg.data[0].numpy()
        assert (found == wanted).mean() > 0.999 and len(np.unique(found)) > 2
    task.cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=1.))
    with pytest.raises(ValueError, match='has RandomFlip, which cannot be done here: label images by mmseg-gpt'):
        FileLabeller('file.onnx')


def test_what_measures_a_file_of_bytes_pads_with_the_colour_that_is_0_to_the_model(padding_task, monkeypatch):
    model, image, given = copy.deepcopy(padding_task.model), drawn(33, 39), []
    model.test_cfg['mode'] = 'whole'
    monkeypatch.setattr(onnx_file, 'run', lambda _, images: given.append(images) or dict(
        logits=np.zeros((len(images), 9, *images.shape[2:]), np.float32)))
    answer_by(model, None, Choices(preprocess=True))
    prepared = padding_task.prepare(image)
    model.test_step({key: [prepared[key]] for key in ('inputs', 'data_samples')})
    (images, ), = given
    assert images.dtype == np.uint8 and np.array_equal(images[:, :33, :39], image[..., ::-1].transpose(2, 0, 1))
    assert images.shape == (3, 40, 40) and images[:, 39, 39].tolist() == [124, 116, 104]  # the mean


def test_bands_are_as_large_as_the_device_likes(task, monkeypatch):
    asked = []
    monkeypatch.setattr('mmseg_gpt.apis.tiles.band_bytes', lambda device: asked.append(device) or 8 * 97 * 9 * 4)
    parts = [len(logits) for _, _, logits in logits_in_tiles(TaskLabeller(task), Pixels(drawn(75, 97)))]
    assert max(parts) == 8 and set(asked) == {task.model.data_preprocessor.device}


def test_a_tile_goes_through_the_pipeline_as_an_image_of_its_own(tmp_path, monkeypatch):
    task, image = made_task(tmp_path, resize=True, mode='whole'), drawn(40, 100)
    assert torch.equal(predict_in_tiles(TaskLabeller(task), image).pred_sem_seg.data[0], whole(task, image))
    found = predict_in_tiles(TaskLabeller(task, Tiling(40, 0)), image, dict(small=True)).pred_sem_seg.data[0]
    for left in (0, 40):
        assert torch.equal(found[:, left:left + 20].long(), whole(task, image[:, left:left + 40])[:, :20])
    monkeypatch.setattr(segmentor, 'CPU_BAND', 8 * 100 * 9 * 4)  # 8 rows: all classes of a whole image are never there
    assert [len(part) for _, _, part in logits_in_tiles(TaskLabeller(task), Pixels(image))] == [8] * 5
    with pytest.raises(ValueError, match='tiles have 2 pixels'):
        predict_in_tiles(TaskLabeller(task, Tiling(40, 1)), image)


def test_memory_follows_the_strip_and_not_the_image(task):
    """Only bands of logits are handed out, and pixels are read a tile at a time."""
    read = []

    class Noted(Pixels):
        def read(self, rows: slice, columns: slice) -> np.ndarray:
            read.append((rows.stop - rows.start) * (columns.stop - columns.start))
            return super().read(rows, columns)

    most = 0
    for _, _, logits in logits_in_tiles(TaskLabeller(task), Noted(drawn(64, 500)), 100 * 32 * 9 * 4):
        most = max(most, logits.untyped_storage().nbytes())
    assert max(read) == 32 * 32 and most <= 100 * 32 * 9 * 4


@pytest.mark.slow
def test_an_onnx_file_labels_in_the_same_windows(task, tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from mmseg_gpt.export import export_task
    image = drawn(75, 97)
    for name, choices in dict(a=Choices(), b=Choices(preprocess=True, layout='nhwc', size=(32, 32))).items():
        export_task(task, tmp_path / f'{name}.onnx', choices)
        found = FileLabeller(tmp_path / f'{name}.onnx').label(image)
        assert found.dtype == np.uint8 and (found == whole(task, image).numpy()).mean() > 0.999
    with pytest.raises(ValueError, match='takes images of 32 x 32 pixels only'):
        FileLabeller(tmp_path / 'b.onnx', Tiling(30)).label(image)


def test_a_half_transparent_tiff_is_refused_for_opencv_darkens_it(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    from mmseg_gpt.datasets.reading import read_bands
    image, file = drawn(8, 9, 4), tmp_path / 'a.tif'
    tifffile.imwrite(file, image, photometric='rgb', extrasamples=['unassalpha'])
    assert 'half-transparent' in check_headers(file)[0] and 'LoadBands' in check_headers(file)[0]
    assert read_header(file).straight and np.array_equal(read_bands(file), image)
    image[..., 3] = 255 * (image[..., 3] > 90)
    tifffile.imwrite(file, image, photometric='rgb', extrasamples=['unassalpha'])
    assert check_headers(file) == []


# --- GeoTIFFs --------------------------------------------------------------------------------------


def predict(folder: Path, *arguments: str | Path) -> dict:
    """Runs tools/predict.py for the task in a folder; returns its one answer."""
    out = folder / 'out'
    done = subprocess.run([sys.executable, ROOT / 'tools/predict.py', '--task', 'tiny', folder / 'config.py',
                           folder / 'model.pth', '--out', out, '--json', folder / 'answers.json', '--device', 'cpu',
                           *arguments], capture_output=True, text=True, cwd=folder, env=environment_of())
    assert done.returncode == 0, done.stdout + done.stderr
    (answer, ) = json.loads((folder / 'answers.json').read_text())
    return answer


@pytest.mark.parametrize('nodata', [None, 0])
def test_labels_of_a_geotiff_keep_its_place(nodata, task, tmp_path):
    rasterio = pytest.importorskip('rasterio')
    from mmseg_gpt.apis.label_files import write_raster
    image, file = np.maximum(drawn(75, 97), 1), tmp_path / 'scene.tif'
    image[5:20, 60:] = 0
    place = write_geotiff(file, image, nodata=nodata, photometric='rgb', tiled=True, blockxsize=16, blockysize=16)
    assert is_georeferenced(file)
    writer = LabelWriter(task, tmp_path / 'out')
    found = write_raster(writer, TaskLabeller(task), file, 'scene', confidence=True)
    expected = whole(task, image[..., ::-1]).numpy()
    empty = np.zeros(expected.shape, bool)
    if nodata is not None:
        empty[5:20, 60:] = True
    with rasterio.open(found['label_map']) as labels, rasterio.open(found['confidence']) as sure:
        assert labels.crs == sure.crs == place['crs'] and labels.transform == sure.transform == place['transform']
        assert labels.nodata == (None if nodata is None else 255) and labels.dtypes == ('uint8', )
        assert np.array_equal(labels.read(1), np.where(empty, 255, expected)) and labels.block_shapes == [(512, 512)]
        assert labels.colormap(1)[3][:3] == tuple(PALETTE[3]) and sure.read(1).min() >= 255 / 9
    counts = np.bincount(expected[~empty], minlength=9)
    assert found['shares'] == {CLASSES[i]: round(counts[i] / counts.sum(), 6) for i in np.argsort(
        -counts, kind='stable') if counts[i]}
    assert Image.open(found['overlay']).size == (97, 75)


def test_a_geotiff_that_holds_nothing_or_is_cut_off_is_told_so(task, tmp_path):
    pytest.importorskip('rasterio')
    from mmseg_gpt.apis.label_files import write_raster
    file = tmp_path / 'scene.tif'
    write_geotiff(file, drawn(75, 97) * 0, nodata=0, photometric='rgb')
    assert as_line(write_raster(None, TaskLabeller(task), file, 'scene')) == 'no pixel holds anything'
    write_geotiff(file, drawn(75, 97), photometric='rgb')
    file.write_bytes(file.read_bytes()[:-9000])
    with pytest.raises(SampleError, match='truncated or damaged') as raised:
        write_raster(None, TaskLabeller(task), file, 'scene')
    assert 'previous exception' not in str(raised.value)


def test_a_geotiff_that_would_be_read_turned_is_refused(task, tmp_path):
    exif, file = Image.Exif(), tmp_path / 'a.tif'
    exif[0x0112] = 3
    Image.fromarray(drawn(20, 30)).save(file, exif=exif)
    with pytest.raises(SampleError, match=r'a\.tif has the tag Orientation, .* gdal_translate writes it without'):
        can_stream(task, None, read_header(file), file)


def test_a_picture_may_have_one_pixel(task, tmp_path):
    file = tmp_path / 'one.png'
    Image.fromarray(drawn(1, 1)).save(file)
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.ones(1, 1, 1, dtype=torch.uint8)))
    sample.seg_probabilities = PixelData(data=torch.ones(9, 1, 1))  # in memory
    found = LabelWriter(task, tmp_path / 'out').write(str(file), sample)
    assert Image.open(found['overlay']).size == (1, 1) and all(Path(path).is_file() for path in found.values())


@pytest.mark.slow
def test_predict_writes_geotiffs_where_they_come_in(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    task, image = made_task(tmp_path), drawn(75, 97)
    place = write_geotiff(tmp_path / 'scene.tif', image, photometric='rgb', compress='jpeg', jpeg_quality=100)
    answer = predict(tmp_path, '--images', tmp_path / 'scene.tif')
    stored = rasterio.open(tmp_path / 'scene.tif').read()
    with rasterio.open(answer['label_map']) as labels:
        assert labels.crs == place['crs'] and labels.transform == place['transform']
        assert np.array_equal(labels.read(1), whole(task, np.moveaxis(stored, 0, 2)[..., ::-1]).numpy())
    Image.fromarray(image).save(tmp_path / 'plain.png')
    answer = predict(tmp_path, '--images', tmp_path / 'plain.png', '--tile', '40', '--probabilities')
    expected = predict_in_tiles(TaskLabeller(task, Tiling(40)), image[..., ::-1]).pred_sem_seg.data[0]
    assert np.array_equal(Image.open(answer['label_map']), expected.numpy())
    assert np.load(answer['probabilities']).shape == (9, 75, 97)

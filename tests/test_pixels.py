"""Images that are not 8-bit RGB: each is refused with the remedy, or read by a stated scale, everywhere alike."""

import io
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

from mmseg_gpt.apis import ServedTask
from mmseg_gpt.checks.pairs import corrupted_floats
from mmseg_gpt.datasets import GuardedDataset, LoadBands, PixelError, SampleError, check_headers, inspect_pair
from mmseg_gpt.datasets import headers as headers_module
from mmseg_gpt.datasets.found.pixels import describe_pixels, parse_bands, parse_scale
from mmseg_gpt.datasets.headers import read_header
from mmseg_gpt.datasets.introspect import reader_of
from mmseg_gpt.datasets.judging import USUAL, Reader
from mmseg_gpt.datasets.predicted import read_picture
from mmseg_gpt.datasets.reading import Bands, read_bands

tifffile = pytest.importorskip('tifffile')
SLOPE = np.add.outer(np.arange(40), np.arange(50)) / 88  # 0 to 1
TWELVE = (SLOPE * 3060).astype(np.uint16)


def stack(values: np.ndarray, bands: int) -> np.ndarray:
    """Bands that can be told apart, (40, 50, bands)."""
    return np.stack([values // (i + 1) if values.dtype.kind != 'f' else values / (i + 1) for i in range(bands)], 2)


def tiff(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{'photometric': 'minisblack', **options})
    return file.getvalue()


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


EIGHT = (SLOPE * 255).astype(np.uint8)
GRAY = Image.fromarray(EIGHT)
FOUR = dict(planarconfig='contig', extrasamples=[0, 0, 0])
# Of each kind: the file, type and number of its bands, and what is said of it in the usual pipeline.
REFUSED = {
    '12 bits in 16, gray': (tiff(TWELVE), 'uint16', 1, '12 of 256 grays', '--scale 0:3100'),
    '12 bits in 16, RGB': (tiff(stack(TWELVE, 3), photometric='rgb'), 'uint16', 3, '12 of 256 grays', '--scale 0:3'),
    '12 bits in 16, PNG': (encoded('.png', stack(TWELVE, 3)), 'uint16', 3, '12 of 256 grays', '--scale 0:3'),
    '8 bits in 16': (encoded('.png', EIGHT.astype(np.uint16)), 'uint16', 1, 'loaded as black', '--scale 0:255'),
    'signed': (tiff((SLOPE * 3000 - 500).astype(np.int16)), 'int16', 1, 'wrap negative', '--scale'),
    'signed, 8 bits': (tiff((SLOPE * 100 - 50).astype(np.int8)), 'int8', 1, 'wrap negative', '--scale'),
    '32 bits': (tiff((SLOPE * 3000).astype(np.uint32)), 'uint32', 1, 'no 8-bit image', '--scale'),
    'float': (tiff(SLOPE.astype(np.float32)), 'float32', 1, 'no 8-bit image', '--scale 0:1'),
    'half': (tiff(SLOPE.astype(np.float16)), 'float16', 1, 'no 8-bit image', '--scale 0:1'),
    'double RGB': (tiff(stack(SLOPE, 3), photometric='rgb'), 'float64', 3, 'no 8-bit image', '--scale 0:1'),
    'three bands without colours': (tiff(stack(EIGHT, 3), planarconfig='contig'), 'uint8', 3, 'drop', '--bands 1,2,3'),
    'four bands': (tiff(stack(EIGHT, 4), **FOUR), 'uint8', 4, 'drop', '--bands 3,2,1'),
    'RGB and infrared': (tiff(stack(EIGHT, 4), photometric='rgb', extrasamples=[0]), 'uint8', 4, 'drop', '1,2,3'),
    'see-through': (tiff(stack(EIGHT, 4), photometric='rgb', extrasamples=[2]), 'uint8', 4, 'become dark', '1,2,3'),
    'eight bands': (tiff(stack(TWELVE, 8), planarconfig='contig'), 'uint16', 8, '4 at most', '--bands 3,2,1'),
    'planes': (tiff(stack(TWELVE, 8).transpose(2, 0, 1), planarconfig='separate'), 'uint16', 8, '4 at most', '--bands'),
    'pages': (tiff(stack(TWELVE, 4).transpose(2, 0, 1)), 'uint16', 4, 'first of its 4 pages', '--bands 3,2,1'),
    'BigTIFF': (tiff(stack(TWELVE, 4), bigtiff=True, **FOUR), 'uint16', 4, 'drop', '--bands 3,2,1'),
    'big-endian': (tiff(stack(TWELVE, 4), byteorder='>', **FOUR), 'uint16', 4, 'drop', '--bands 3,2,1'),
    'Radiance': (encoded('.hdr', stack((3 * SLOPE).astype(np.float32), 3)), 'float32', 3, 'brighter than white', '0:1'),
}
PLAIN = {
    'gray': (saved(GRAY, 'PNG'), 1), 'JPEG': (saved(GRAY.convert('RGB'), 'JPEG'), 3),
    'CMYK JPEG': (saved(GRAY.convert('CMYK'), 'JPEG'), 3), 'palette': (saved(GRAY.convert('P'), 'PNG'), 3),
    '1 bit': (saved(GRAY.convert('1'), 'PNG'), 1), 'RGBA': (saved(GRAY.convert('RGBA'), 'PNG'), 4),
    'gray and alpha': (saved(GRAY.convert('LA'), 'PNG'), 2), '1-bit TIFF': (saved(GRAY.convert('1'), 'TIFF'), 1),
    'RGB TIFF': (tiff(stack(EIGHT, 3), photometric='rgb'), 3),
    'RGBA TIFF': (tiff(np.dstack([stack(EIGHT, 3), np.full_like(EIGHT, 255)]), photometric='rgb', extrasamples=[2]), 4),
    'GIF': (saved(GRAY, 'GIF'), 3), 'GIF of 256 grays': (saved(Image.linear_gradient('L'), 'GIF'), 3),
    'WebP': (saved(GRAY.convert('RGB'), 'WEBP'), 3),
}


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str = 'image.x') -> str:
        Path(tmp_path / name).write_bytes(content)
        return str(tmp_path / name)
    return write


@pytest.mark.parametrize('kind', REFUSED)
def test_what_the_usual_reader_would_spoil_is_refused_with_the_remedy_and_read_whole(kind, write):
    content, dtype, bands, why, remedy = REFUSED[kind]
    path = write(content)
    problem, = check_headers(path)
    assert path in problem and why in problem and remedy in problem and 'LoadBands' in problem
    header = read_header(path)
    assert (header.dtype, header.bands, header.size) == (dtype, bands, (50, 40))
    pixels = read_bands(path)
    assert pixels.shape == (40, 50, bands) and pixels.dtype == dtype
    if bands > 2:  # the first is the brightest of those made above, OpenCV's files have blue first
        first, last = (0, 2) if content[:2] in (b'II', b'MM') else (2, 0)
        assert pixels[..., first].mean() > 2 * pixels[..., last].mean()
    report = describe_pixels([path])
    assert not report.plain and report.problems == [problem] and (report.dtype, report.bands) == (dtype, bands)
    solved = describe_pixels([path], report.recommended_bands or (1, ) * 3, report.recommended_scale)
    assert solved.problems == [] and solved.transform()['type'] == 'LoadBands'
    image = TRANSFORMS.build(solved.transform())(dict(img_path=path))['img']
    assert image.shape == (40, 50, 3) and image.dtype == np.uint8
    assert len(np.unique(image)) > 70 and not check_headers(path, reader=Reader(solved.how))
    assert inspect_pair(path, reader=Reader(solved.how)) == ([], (50, 40), None)


@pytest.mark.parametrize('kind', PLAIN)
def test_what_the_usual_reader_reads_right_is_read_alike_by_the_other(kind, write):
    content, bands = PLAIN[kind]
    path = write(content)
    assert check_headers(path) == [] and describe_pixels([path]).plain
    assert describe_pixels([path]).transform() == dict(type='LoadImageFromFile')
    assert read_header(path).bands == bands == read_bands(path).shape[2]
    assert np.array_equal(LoadBands()(dict(img_path=path))['img'], mmcv.imread(path))


@pytest.mark.parametrize('kind', ['GIF', 'PNG', 'WEBP'])
@pytest.mark.parametrize('reader', [USUAL, Reader(Bands()), Reader(judged=False)], ids=['usual', 'bands', 'other'])
def test_an_animation_is_refused_for_every_reader(kind, reader, write):
    path = write(saved(GRAY.convert('RGB'), kind, save_all=True, append_images=[Image.new('RGB', GRAY.size)]))
    problem, = check_headers(path, reader=reader)
    assert 'image.x is an animation' in problem and 'as a PNG' in problem


def test_a_format_that_opencv_was_built_without_is_refused(write, monkeypatch):
    monkeypatch.setattr('cv2.haveImageReader', lambda path: False)
    problem, = check_headers(write(saved(GRAY, 'GIF')))
    assert problem.endswith('image.x is of the format GIF, which this OpenCV does not read: save it as a PNG')


@pytest.mark.parametrize(('content', 'reader', 'said'), [
    (saved(GRAY, 'JPEG')[:400], LoadImageFromFile(), 'cannot be decoded, it is truncated'),
    (saved(GRAY, 'BMP')[:400], LoadImageFromFile(), 'cannot be decoded, it is truncated'),
    (b'no image', LoadImageFromFile(), 'is not an image'), (tiff(TWELVE[:, :, None]), LoadBands(), 'say which values'),
    (tiff(np.full((4, 6), np.nan, np.float32)), LoadBands(scale=(0, 1)), 'pixels without a number')])
def test_a_message_is_one_sentence_that_names_the_file_once(content, reader, said, write):
    path = write(content)
    with pytest.raises(SampleError) as refused:
        ServedTask(None, None, '', reader, None).read(path)
    message = str(refused.value)
    assert message.startswith(f'{path} ') and message.count(path) == 1 and message.count('cannot') <= 1
    assert said in message


def test_bands_and_scale_make_what_they_say(write):
    values = np.stack([np.full((4, 6), v, np.uint16) for v in (100, 1000, 4000, 7)], 2)
    path = write(tiff(values, **FOUR))
    for float32 in (False, True):
        results = LoadBands((3, 2, 1), (0, 3000), to_float32=float32)(dict(img_path=path))
        assert results['img_shape'] == results['ori_shape'] == (4, 6)
        blue, green, red = results['img'][0, 0]
        assert (blue, green, red) == pytest.approx((8.5, 85, 255), abs=0 if float32 else 0.5)
    each = LoadBands((1, 4), ((0, 200), (6, 8)))(dict(img_path=path))['img'][0, 0]
    assert each.tolist() == [128, 128]  # in the order asked for
    assert np.array_equal(LoadBands((3, 2, 1), (0, 3000)).from_array(values)['img'],
                          LoadBands((3, 2, 1), (0, 3000))(dict(img_path=path))['img'])


@pytest.mark.parametrize('missing, options', [
    (np.nan, {}), (np.inf, {}), (-9999., dict(extratags=[(42113, 's', 6, '-9999', True)]))])
def test_pixels_without_a_number_are_refused_or_filled(missing, options, write):
    values = SLOPE.astype(np.float32)
    values[3, 4] = missing
    path = write(tiff(values, **options))
    with pytest.raises(PixelError, match=r'image\.x has 1 pixels without a number .*fill=0'):
        LoadBands(scale=(0, 1))(dict(img_path=path))
    assert 'without a number' in inspect_pair(path, reader=Reader(Bands(scale=((0, 1), )))).problems[0]
    assert (LoadBands(scale=(0, 1), fill=7)(dict(img_path=path))['img'][3, 4] == 7).all()
    report = describe_pixels([path], scale=(0, 1))
    assert report.transform()['fill'] == 0 and any('become black' in note for note in report.notes)
    assert report.low == 0 and report.high == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize('arguments, message', [
    (dict(bands=(0, 1, 2)), 'numbers from 1'), (dict(bands=()), 'numbers from 1'), (dict(scale=(5, 5)), 'higher value'),
    (dict(scale=(0, np.inf)), 'higher value'), (dict(bands=(1, 2), scale=((0, 1), ) * 3), '3 pairs for 2 bands'),
    (dict(fill=300), 'from 0 to 255')])
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoadBands(**arguments)


@pytest.mark.parametrize('arguments, message', [
    (dict(bands=(5, 2, 1), scale=(0, 1)), r'4 bands of uint16, but bands 5, 2, 1'),
    (dict(scale=(0, 1)), r'not said to be red.*bands=\(3, 2, 1\)'), (dict(bands=(3, 2, 1)), r'scale=\(0, 3000\)'),
    (dict(bands=(3, 2, 1), scale=(0, 1), expected=('uint8', 3)), '3 of uint8 in training')])
def test_a_file_that_does_not_go_with_the_arguments_is_refused_by_transform_and_checks(arguments, message, write):
    path = write(tiff(stack(TWELVE, 4), **FOUR))
    loader = LoadBands(**arguments)
    with pytest.raises(PixelError, match=message):
        loader(dict(img_path=path))
    assert check_headers(path, reader=Reader(loader.how))


def test_a_scale_for_several_types_is_refused_and_clipping_is_said(write):
    paths = [write(tiff(TWELVE), 'a.tif'), write(tiff(SLOPE.astype(np.float32)), 'b.tif')]
    assert 'several types' in describe_pixels(paths, scale=(0, 3000)).problems[0]
    notes = ' '.join(describe_pixels(paths[:1], scale=(0, 1000)).notes)
    assert 'values from 0 to 1000 become 0 to 255' in notes and 'lie outside' in notes
    clear = Image.fromarray(np.dstack([EIGHT, EIGHT, EIGHT, EIGHT]))
    assert 'transparent in places' in describe_pixels([write(saved(clear, 'PNG'))]).notes[0]
    assert describe_pixels([write(saved(GRAY.convert('RGBA'), 'PNG'))]).notes == []
    with pytest.raises(ValueError, match='no images'):
        describe_pixels([])


def test_bands_and_scales_are_read_from_the_command_line():
    assert parse_bands('3,2,1') == (3, 2, 1) and parse_scale('0:3000') == (0, 3000)
    assert parse_scale('0:1,-5:2.5') == ((0, 1), (-5, 2.5))
    for reader, text in ((parse_bands, '3,x'), (parse_bands, '0,1'), (parse_scale, '3000'), (parse_scale, '5:1')):
        with pytest.raises(ValueError, match=f'^{text} is no '):
            reader(text)


def test_a_file_over_the_limit_of_pillow_is_not_damaged(write, monkeypatch):
    path = write(saved(GRAY, 'PNG'))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 2000)
    assert check_headers(path) == []
    monkeypatch.setattr(headers_module, 'MOST_PIXELS', 1999)
    monkeypatch.setattr('mmseg_gpt.datasets.judging.MOST_PIXELS', 1999)
    problem, = check_headers(path)
    assert '50x40 pixels' in problem and 'OPENCV_IO_MAX_IMAGE_PIXELS=2000' in problem and 'damaged' not in problem


def test_limits_of_pillow_and_opencv_are_the_same():
    assert headers_module.MOST_PIXELS >= 2**30 and Image.MAX_IMAGE_PIXELS >= headers_module.MOST_PIXELS


class Images:
    """A dataset of two images in a pipeline."""

    def __init__(self, paths, pipeline):
        from mmengine.dataset import Compose
        self.paths, self.pipeline = paths, Compose(pipeline)

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, index):
        return dict(img_path=self.paths[index])

    def __getitem__(self, index):
        return self.pipeline(self.get_data_info(index))


@pytest.mark.parametrize('scope, pack', [('mmseg', 'PackSegInputs'), ('mmpretrain', 'PackInputs')])
def test_training_refuses_a_wrong_image_and_takes_it_with_bands_in_both_libraries(scope, pack, write):
    pytest.importorskip(scope)
    from mmengine.registry import init_default_scope
    init_default_scope(scope)
    path = write(tiff(stack(TWELVE, 4), **FOUR))
    plain = GuardedDataset(Images([path], [dict(type='LoadImageFromFile'), dict(type=pack)]))
    with pytest.raises(SampleError, match='drop bands'):
        plain[0]
    loader = dict(type='LoadBands', bands=(3, 2, 1), scale=(0, 3060))
    steps = [loader, dict(type='Resize', scale=(25, 20), backend='pillow' if scope == 'mmpretrain' else 'cv2'),
             *([dict(type='PhotoMetricDistortion')] if scope == 'mmseg' else []), dict(type=pack)]
    dataset = GuardedDataset(Images([path], steps))
    inputs = dataset[0]['inputs']
    assert inputs.shape == (3, 20, 25) and inputs.max() > 150
    assert reader_of(dataset) == Reader(LoadBands(bands=(3, 2, 1), scale=(0, 3060)).how)
    picture = read_picture(path, LoadBands((3, 2, 1), (0, 3060)))
    assert picture[-1, -1].tolist() == [85, 128, 255]  # red is the third band, a third as bright


def test_a_loader_of_ones_own_is_not_judged(write):
    from mmcv.transforms import LoadImageFromFile

    class Own(LoadImageFromFile):
        pass

    for loader in (Own(), LoadImageFromFile(color_type='unchanged'), LoadImageFromFile(imdecode_backend='tifffile')):
        assert reader_of(Images([], [loader])) == Reader(judged=False)
    assert check_headers(write(tiff(TWELVE)), reader=Reader(judged=False)) == []


def test_photometric_distortion_of_floats_is_refused_because_it_destroys_them():
    pytest.importorskip('mmseg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        distort = TRANSFORMS.build(dict(type='mmseg.PhotoMetricDistortion'))
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.float32)
    differ = []
    for seed in range(20):
        outcomes = []
        for image in (colours, colours.astype(np.uint8)):
            np.random.seed(seed)
            outcomes.append(distort(dict(img=image.copy()))['img'].astype(float))
        differ.append(np.abs(outcomes[0] - outcomes[1]).mean())
    assert max(differ) > 20  # which is why it is refused; rounded pixels are safe
    for float32 in (True, False):
        pipeline = [dict(type='LoadBands', scale=(0, 1), to_float32=float32), dict(type='PhotoMetricDistortion')]
        cfg = Config(dict(train_dataloader=dict(dataset=dict(type='X', pipeline=pipeline))))
        assert len(corrupted_floats(cfg, ('train_dataloader', ))) == float32


@pytest.mark.parametrize('tile', [None, (16, 16)])
@pytest.mark.parametrize('alpha', [False, True])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32', 'float16'])
def test_bands_one_after_the_other_are_read_as_they_were_written(dtype, alpha, tile, write):
    values = np.random.default_rng(0).integers(0, 255, (3 + alpha, 33, 41)).astype(dtype)
    values[3:] = 255
    options = dict(photometric='rgb', planarconfig='separate', tile=tile, extrasamples=[2] * alpha)
    path = write(tiff(values, **options))
    assert read_header(path).planar and np.array_equal(read_bands(path), values.transpose(1, 2, 0))
    image = LoadBands(scale=(0, 255))(dict(img_path=path))['img']
    assert np.array_equal(image, values[2::-1].transpose(1, 2, 0).astype(np.uint8))
    report = describe_pixels([path], scale=(0, 255))
    assert (report.low, report.high) == (0, 254) and not report.problems


def test_full_16_bits_one_after_the_other_are_plain_and_12_are_refused(write):
    options = dict(photometric='rgb', planarconfig='separate')
    full = (stack(SLOPE, 3) * 65535).astype(np.uint16).transpose(2, 0, 1)
    path = write(tiff(full, **options))
    assert describe_pixels([path]).plain
    assert np.abs(mmcv.imread(path)[..., ::-1].transpose(2, 0, 1) - full / 257).max() <= 1
    twelve = write(tiff(stack(TWELVE, 3).transpose(2, 0, 1), **options))
    assert '12 of 256 grays' in check_headers(twelve)[0] and '--scale 0:3' in check_headers(twelve)[0]


def test_bands_one_after_the_other_need_tifffile(write, monkeypatch):
    path = write(tiff(stack(TWELVE, 3).transpose(2, 0, 1), photometric='rgb', planarconfig='separate'))
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    problem, = check_headers(path)
    assert path in problem and 'mmseg_gpt[bands]' in problem


def test_half_colours_keep_their_order(write):
    values = stack(SLOPE.astype(np.float16), 3)
    assert np.array_equal(read_bands(write(tiff(values, photometric='rgb'))), values)


def test_values_that_no_sensor_gives_are_noted(write):
    values = SLOPE.astype(np.float32)
    values[0, 0] = -3.4e38
    assert '-3.4e+38' in ' '.join(describe_pixels([write(tiff(values))], scale=(0, 1)).notes)

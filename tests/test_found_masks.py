"""Reading masks of all kinds, one by one: what is in the file is read, or refused with what to do."""

import io
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_gpt.datasets.found.facts import as_code, count
from mmseg_gpt.datasets.found.masks import MaskError, read_mask

VALUES = np.repeat(np.repeat(np.array([[0, 1, 2], [3, 1, 0]], np.uint8), 8, 0), 8, 1)  # (16, 24)
COLOURS = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 10], [10, 10, 200]], np.uint8)
PALETTE = [*COLOURS.ravel().tolist(), 9, 9, 9]


def palette_image(values: np.ndarray = VALUES, palette: list[int] = PALETTE) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette(palette)
    return image


def gray_png(values: np.ndarray, bits: int) -> bytes:
    """Returns a gray PNG of 1, 2 or 4 bits a pixel, which Pillow does not write."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    height, width = values.shape
    places = 8 // bits
    packed = sum(values[:, i::places].astype(int) << (8 - bits * (i + 1)) for i in range(places)).astype(np.uint8)
    rows = b''.join(b'\0' + row.tobytes() for row in packed)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def save(path: Path, content: object, **options: object) -> Path:
    """Writes an image, an array or bytes."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == '.npy':
        np.save(path, content)
    else:
        (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(path, **options)
    return path


@pytest.mark.parametrize('name, content, kind', [
    ('gray.png', VALUES, 'gray'),
    ('gray.tif', VALUES, 'gray'),
    ('gray.BMP', VALUES, 'gray'),
    ('wide.png', VALUES.astype(np.uint16), 'gray'),
    ('wide.tif', VALUES.astype(np.uint16), 'gray'),
    ('whole.tif', VALUES.astype(np.float32), 'gray'),
    ('palette.png', palette_image(), 'palette'),
    ('palette.gif', palette_image(), 'palette'),
    ('palette.bmp', palette_image(), 'palette'),
    ('equal.png', np.stack([VALUES] * 3, -1), 'channels'),
    ('equal_alpha.png', np.dstack([VALUES] * 3 + [np.full_like(VALUES, 255)]), 'channels'),
    ('gray_alpha.png', np.dstack([VALUES, np.full_like(VALUES, 255)]), 'gray'),
    ('two_bits.png', gray_png(VALUES, 2), 'gray'),
    ('four_bits.png', gray_png(VALUES, 4), 'gray'),
    ('bytes.npy', VALUES, 'gray'),
    ('long.npy', VALUES.astype(np.int64)[None], 'gray'),
    ('float.npy', VALUES.astype(np.float32)[..., None], 'gray'),
    ('array.png', None, 'gray'),
])
def test_numbers_are_read_as_they_are(tmp_path, name, content, kind):
    if content is None:  # numpy's format under another suffix: the content decides
        with io.BytesIO() as file:
            np.save(file, VALUES)
            content = file.getvalue()
    mask = read_mask(save(tmp_path / name, content))
    assert mask.kind == kind and mask.values.tolist() == VALUES.tolist() and not mask.lossy and not mask.note
    if kind == 'palette':
        assert mask.palette[:4].tolist() == COLOURS.tolist() and mask.palette.shape == (256, 3)


@pytest.mark.parametrize('dtype, value', [
    (np.float32, -3.4028235e38), (np.float64, 1e300), (np.uint32, 2**32 - 1), (np.int64, 2**32 + 1),
    (np.uint64, 2**64 - 1)])
def test_no_data_does_not_wrap_into_a_class_number(tmp_path, dtype, value):
    values = VALUES.astype(dtype)
    values[0] = value
    read = read_mask(save(tmp_path / 'mask.npy', values)).values
    assert (np.abs(read[0]) >= 2**32 - 1).all() and read[1:].tolist() == VALUES[1:].tolist()


def test_one_bit_and_bool_are_0_and_1(tmp_path):
    bits = VALUES > 1
    for name, content in (('bit.png', Image.fromarray(bits)), ('bit.tif', Image.fromarray(bits)), ('bool.npy', bits),
                          ('raw.png', gray_png(bits.astype(np.uint8), 1))):
        assert read_mask(save(tmp_path / name, content)).values.tolist() == bits.astype(int).tolist(), name


def test_colours_are_red_green_blue(tmp_path):
    colours = COLOURS[VALUES]
    opaque = np.dstack([colours, np.full_like(VALUES, 255)])
    for name, content in (('rgb.png', colours), ('rgba.png', opaque), ('rgb.tif', colours), ('rgb.npy', colours)):
        mask = read_mask(save(tmp_path / name, content))
        assert mask.kind == 'colours' and (mask.values == colours).all() and not mask.note, name


def test_channels_of_16_bits_keep_their_low_bytes(tmp_path):
    cv2.imwrite(str(tmp_path / 'equal.png'), np.stack([VALUES.astype(np.uint16)] * 3, -1))
    assert read_mask(tmp_path / 'equal.png').values.tolist() == VALUES.tolist()
    for name in ('wide.png', 'wide.tif'):
        cv2.imwrite(str(tmp_path / name), COLOURS[VALUES][..., ::-1].astype(np.uint16) * 257)
        assert (read_mask(tmp_path / name).values == COLOURS[VALUES]).all()
    cv2.imwrite(str(tmp_path / 'deep.png'), COLOURS[VALUES].astype(np.uint16) * 100)
    with pytest.raises(MaskError, match=r'deep\.png has colours of 16 bits a channel; save it with 8 bits'):
        read_mask(tmp_path / 'deep.png')


def test_transparency_is_told(tmp_path):
    alpha = np.where(VALUES == 0, 0, 255).astype(np.uint8)
    mask = read_mask(save(tmp_path / 'holes.png', np.dstack([COLOURS[VALUES], alpha])))
    assert mask.kind == 'colours' and 'transparent pixels (33.3%)' in mask.note
    mask = read_mask(save(tmp_path / 'alpha.png', np.dstack([np.zeros((16, 24, 3), np.uint8), alpha])))
    assert mask.kind == 'gray' and mask.values.tolist() == alpha.tolist() and 'in the transparency' in mask.note


def test_jpeg_is_told_by_its_content(tmp_path):
    mask = read_mask(save(tmp_path / 'mask.png', COLOURS[VALUES], format='JPEG'))
    assert mask.lossy and mask.kind == 'colours' and 'is a JPEG in spite of its suffix' in mask.note
    mask = read_mask(save(tmp_path / 'mask.jpg', VALUES, format='PNG'))
    assert not mask.lossy and mask.values.tolist() == VALUES.tolist()
    binary = np.stack([VALUES // 2 * 255] * 3, -1)
    assert read_mask(save(tmp_path / 'gray.jpg', binary)).kind == 'channels'  # although JPEG keeps colours apart
    assert read_mask(save(tmp_path / 'exact.webp', COLOURS[VALUES], lossless=True)).lossy is False
    assert read_mask(save(tmp_path / 'blurred.webp', COLOURS[VALUES])).lossy
    assert read_mask(save(tmp_path / 'blurred.tif', VALUES, compression='jpeg')).lossy
    assert not read_mask(save(tmp_path / 'exact.tif', VALUES, compression='tiff_lzw')).lossy


def test_a_mask_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = read_mask(save(tmp_path / 'mask.png', VALUES, exif=exif))
    assert mask.values.tolist() == np.rot90(VALUES, -1).tolist() and 'EXIF orientation 6' in mask.note


@pytest.mark.parametrize('suffix', ['.gif', '.tif', '.png'])
def test_several_pages_are_refused(tmp_path, suffix):
    path = tmp_path / f'pages{suffix}'
    palette_image().save(path, save_all=True, append_images=[palette_image(VALUES[::-1].copy())])
    with pytest.raises(MaskError, match=rf'pages\{suffix} is (a file|an animation) of 2 pages, and a mask has one'):
        read_mask(path)


def test_smaller_copies_of_a_page_are_passed_over(tmp_path):
    path = tmp_path / 'pyramid.tif'
    Image.fromarray(VALUES).save(path, save_all=True, append_images=[Image.fromarray(VALUES[::2, ::2].copy())])
    mask = read_mask(path)
    assert mask.values.tolist() == VALUES.tolist() and '2 pages' in mask.note


@pytest.mark.parametrize('content, said', [
    (b'', 'is empty (0 bytes)'),
    (b'\x89PNG\n\x1a\n\0\0\0\rIHDR', 'every CRLF in it has become LF'),
    (b'\x89PNG\r\r\n\x1a\r\n\0\0\0\rIHDR', 'every LF in it has become CRLF'),
    (b'\xef\xbf\xbdPNG\r\n', 'bytes that are not UTF-8 are lost'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'run `git lfs pull`'),
    (b'\n<!DOCTYPE html><html>', 'is a web page'),
    (b'{"shapes": []}', '`mmseg-gpt labels` makes masks of it'),
    (b'<annotation>', '`mmseg-gpt labels` makes masks of it'),
    (b'\0\0\0\x24ftypheic\0\0\0\0mif1heic', 'is a HEIC image, as phones take them'),
    (b'plain words', 'is not an image, or its beginning is damaged'),
    (b'\x93NUMPY\x01\x00v\0', 'Python objects or is cut short'),
    (b'MATLAB 7.3 MAT-file, Platform', "-v7"),
])
def test_what_is_no_mask_is_named_with_the_remedy(tmp_path, content, said):
    path = save(tmp_path / 'mask.png', content)
    with pytest.raises(MaskError) as error:
        read_mask(path)
    assert str(error.value).startswith(f'{path} ') and said in str(error.value)


def test_a_truncated_or_missing_mask_is_named(tmp_path):
    whole = save(tmp_path / 'mask.png', np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8))
    whole.write_bytes(whole.read_bytes()[:-900])
    with pytest.raises(MaskError, match=r'mask\.png cannot be decoded, it is truncated or damaged'):
        read_mask(whole)
    with pytest.raises(MaskError, match=r'none\.png is not there'):
        read_mask(tmp_path / 'none.png')


@pytest.mark.parametrize('array, said', [
    (np.full((4, 4), 0.5), 'has fractions'),
    (np.full((4, 4), np.nan), 'has fractions'),
    (np.zeros((7, 5, 6)), 'planes.argmax'),
    (np.zeros(16, int), 'one number or colour for each pixel'),
])
def test_arrays_of_another_kind_are_refused(tmp_path, array, said):
    with pytest.raises(MaskError, match=said):
        read_mask(save(tmp_path / 'mask.npy', array))


def test_matlab_files(tmp_path):
    scipy_io = pytest.importorskip('scipy.io')
    path = tmp_path / 'mask.mat'

    def read(variables: dict, size: tuple[int, int] | None = (24, 16)):
        scipy_io.savemat(path, variables)
        return read_mask(path, size)

    other = np.zeros((5, 6), np.uint8)
    assert read(dict(S=VALUES, names=other)).values.tolist() == VALUES.tolist()  # by the size of the image
    assert 'S' in read(dict(S=VALUES, names=other)).note
    assert read(dict(groundtruth=VALUES, other=VALUES + 1)).values.tolist() == VALUES.tolist()  # by its name
    assert read(dict(GTcls=dict(Boundaries=other, Segmentation=VALUES))).values.tolist() == VALUES.tolist()
    assert read(dict(label=VALUES), None).values.tolist() == VALUES.tolist()
    with pytest.raises(MaskError, match=r'holds tags \(1, 9\): none of these can be a label map'):
        read(dict(tags=np.arange(9)))
    with pytest.raises(MaskError, match=r'several of these can be a label map. Save the right one alone'):
        read(dict(a=VALUES, b=VALUES))


def test_matlab_without_scipy_is_one_sentence(tmp_path, monkeypatch):
    path = save(tmp_path / 'mask.mat', b'MATLAB 5.0 MAT-file')
    monkeypatch.setitem(sys.modules, 'scipy.io', None)
    with pytest.raises(MaskError, match=r'mask\.mat is a MATLAB file, which needs scipy \(pip install scipy\)'):
        read_mask(path)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, 'colours'])
def test_pixels_are_counted_in_bands(monkeypatch, dtype):
    from mmseg_gpt.datasets.found import facts
    generator = np.random.default_rng(0)
    values = generator.integers(0, 4, (37, 23)).repeat(2, 0).repeat(2, 1)
    given = COLOURS[values] if dtype == 'colours' else values.astype(dtype)
    expected = [np.count_nonzero(values == i) for i in range(4)]
    for band in (1 << 22, 100):
        monkeypatch.setattr(facts, 'BAND', band)
        found, counts, solid = count(given)
        order = np.argsort(as_code(COLOURS)) if dtype == 'colours' else range(4)
        assert found.tolist() == (np.sort(as_code(COLOURS)).tolist() if dtype == 'colours' else [0, 1, 2, 3])
        assert counts.tolist() == [expected[i] for i in order] and (solid <= counts).all() and solid.min() > 0


def test_solid_pixels_are_those_of_regions():
    lines = np.zeros((10, 10), np.uint8)
    assert [each.tolist() for each in count(lines)] == [[0], [100], [81]]
    lines[5] = 1
    assert [each.tolist() for each in count(lines)] == [[0, 1], [90, 10], [63, 0]]


@pytest.mark.parametrize('planes', [2, 3, 4, 6])
def test_one_plane_for_each_class_is_refused(tmp_path, planes):
    path = save(tmp_path / 'planes.npy', np.eye(planes, dtype=np.float32)[VALUES % planes])
    with pytest.raises(MaskError, match=r'argmax\(-1\)'):
        read_mask(path)


def test_no_channel_of_an_array_is_transparency(tmp_path):
    path = save(tmp_path / 'pair.npy', np.dstack([VALUES, VALUES * 7]))
    with pytest.raises(MaskError, match='which of its 2 channels'):
        read_mask(path)

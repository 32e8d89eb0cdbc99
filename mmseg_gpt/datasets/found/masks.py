"""Reading masks as people have them: indices, palettes, colours, arrays; judged by content, not by suffix."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..damage import damage
from ..pairs import has_scaled_gray, is_jpeg, orientation_of, png_byte, unreadable
from .arrays import MaskError, array_in_file, is_array_file

LOSSY = ('JPEG', 'MPO', 'JPEG2000', 'AVIF')
JPEG_CHANNELS = 10  # gray that was stored as colour in a JPEG comes back with channels this far apart at most
TIFF_BITS = 258  # the tag
FARTHEST = 2**62  # stands for all values beyond, such as -3.4e38 for no data


class RawMask(NamedTuple):
    """The pixels of a mask as they are in its file.

    Attributes:
        values: Integers (H, W), or 8-bit colours (H, W, 3) in the order red, green, blue.
        kind: 'gray', 'palette', 'channels' (three equal ones, of which one is kept) or 'colours'.
        note: A peculiarity of the file, as the end of a sentence that begins with its name; empty if there is none.
        palette: Colours (256, 3) of the indices of a palette image, else None.
        lossy: Whether the format blurs values, as JPEG does.
    """
    values: np.ndarray
    kind: str
    note: str = ''
    palette: np.ndarray | None = None
    lossy: bool = False


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> RawMask:
    """Reads a mask: PNG, TIFF, BMP, GIF, JPEG, WebP of 1 to 16 bits, .npy, .npz or .mat.

    Args:
        path: The file. Its content decides how it is read.
        size: Width and height of its image, which identify the right variable of a .mat file.

    Raises:
        MaskError: it is damaged, or no mask. The message begins with the file's name and says what to do.
    """
    try:
        if is_array_file(path):
            return of_array_file(*array_in_file(path, size))
        with Image.open(path) as image:
            return of_image(image, path)
    except MaskError as error:
        raise MaskError(f'{path} {error}') from error
    except UnidentifiedImageError as error:
        return other_image(path, error)
    except Exception as error:  # Pillow raises many types for damaged files
        raise MaskError(unreadable(path, error)) from error


def of_image(image: Image.Image, path: str | Path) -> RawMask:
    """Returns the pixels of an opened image.

    Raises:
        MaskError: it has several pages, or pixels of a kind that says nothing of classes.
    """
    note = only_page(image)
    lossy = is_jpeg(image) or image.format in LOSSY or (image.format == 'WEBP' and not is_lossless_webp(path))
    if image.format in LOSSY and Path(path).suffix.lower() not in ('.jpg', '.jpeg', '.jpe', '.jp2', '.mpo'):
        note = note or f'is a {image.format} in spite of its suffix'
    if has_wide_channels(image, path):
        return of_array(rgb(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)), note)
    scale = gray_scale(image, path)
    if (orientation := orientation_of(image)) != 1:
        image = ImageOps.exif_transpose(image)
        note = note or f'has the EXIF orientation {orientation}, and is read upright'
    if image.mode in ('P', 'PA'):
        values = np.array(image.getchannel(0) if image.mode == 'PA' else image)
        return RawMask(values, 'palette', note, palette_of(image), lossy)
    if image.mode in ('CMYK', 'YCbCr', 'LAB', 'HSV'):
        image = image.convert('RGB')
    pixels = np.array(image)
    mask = of_array(pixels if scale == 1 else pixels // scale, note)
    if lossy and mask.kind == 'colours' and np.ptp(mask.values, axis=2).max() <= JPEG_CHANNELS:
        mask = RawMask(mask.values[..., 1].copy(), 'channels', note)
    return mask._replace(lossy=lossy)


def only_page(image: Image.Image) -> str:
    """Checks that an image has one page, or else smaller copies of its first; returns a note about these.

    Raises:
        MaskError: it has several pages of one size.
    """
    pages = getattr(image, 'n_frames', 1)
    if pages == 1 or image.format == 'MPO':
        return ''
    size = image.size
    for page in range(1, min(pages, 16)):
        image.seek(page)
        if image.format != 'TIFF' or image.size == size:
            what = 'an animation' if image.format in ('GIF', 'PNG', 'WEBP') else 'a file'
            raise MaskError(f'is {what} of {pages} pages, and a mask has one; save the page that holds the classes as '
                            'a PNG of its own')
    image.seek(0)
    return f'has {pages} pages, of which the others are smaller copies; the first is read'


def is_lossless_webp(path: str | Path) -> bool:
    """Says whether a WebP file keeps all values, by the name of its chunk of pixels."""
    with open(path, 'rb') as file:
        return b'VP8L' in file.read(256)


def has_wide_channels(image: Image.Image, path: str | Path) -> bool:
    """Says whether an image has several channels of 16 bits, of which Pillow would keep the high bytes only."""
    if image.format == 'PNG':
        return png_byte(path, 24) == 16 and png_byte(path, 25) != 0
    bits = getattr(image, 'tag_v2', {}).get(TIFF_BITS, (8,))
    return image.mode in ('RGB', 'RGBA', 'RGBX') and max(bits) > 8


def gray_scale(image: Image.Image, path: str | Path) -> int:
    """Returns by what Pillow multiplies the values of gray images of 2 and 4 bits; else 1."""
    if image.mode != 'L':
        return 1
    if image.format == 'PNG' and has_scaled_gray(path):
        return 255 // (2 ** png_byte(path, 24) - 1)
    bits = getattr(image, 'tag_v2', {}).get(TIFF_BITS, (8,))[0]
    return 255 // (2 ** bits - 1) if bits in (2, 4) else 1


def palette_of(image: Image.Image) -> np.ndarray:
    """Returns the colours (256, 3) of a palette image; black where it names none."""
    colours = np.array(image.getpalette('RGB') or [], np.uint8).reshape(-1, 3)
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


def rgb(pixels: np.ndarray | None) -> np.ndarray:
    """Returns what OpenCV read with red first.

    Raises:
        MaskError: it could not read it.
    """
    if pixels is None:
        raise MaskError('cannot be decoded; save it as an 8-bit PNG')
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]


def other_image(path: str | Path, error: Exception) -> RawMask:
    """Reads with OpenCV what Pillow does not know, such as some TIFF files.

    Raises:
        MaskError: OpenCV does not know it either.
    """
    if not Path(path).stat().st_size:
        raise MaskError(unreadable(path, error)) from error
    if words := damage(path):
        polygons = '. If it holds polygons or run lengths, `mmseg-gpt labels` makes masks of it'
        raise MaskError(f'{path} {words}{polygons if "JSON" in words or "XML" in words else ""}') from error
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise MaskError(unreadable(path, error)) from error
    try:
        return of_array(rgb(pixels))
    except MaskError as why:
        raise MaskError(f'{path} {why}') from why


def of_array_file(values: np.ndarray, note: str = '') -> RawMask:
    """Returns a mask of the array of a .npy, .npz or .mat file, none of whose channels is transparency.

    Raises:
        MaskError: it has one plane for each class, or numbers that are no classes.
    """
    if values.ndim == 3 and values.shape[2] > 1:
        if ((values == 0) | (values == 1)).all() and (values.sum(2, dtype=np.int64) == 1).all():
            raise MaskError(f'has one plane for each of {values.shape[2]} classes, and a mask has the number of the '
                            'class of each pixel; save `planes.argmax(-1)`')
        if values.shape[2] in (2, 4) and values.shape[0] > 1:
            raise MaskError(f'is an array {values.shape} of {values.dtype}, and it is not known which of its '
                            f'{values.shape[2]} channels holds the classes; save that one, or the three colours')
    return of_array(values, note)


def of_array(values: np.ndarray, note: str = '') -> RawMask:
    """Returns a mask of an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    Raises:
        MaskError: it has another shape, or numbers that are no classes.
    """
    shape = values.shape
    if values.ndim == 3 and 1 in (shape[0], shape[2]):
        values = values.squeeze(0 if shape[0] == 1 else 2)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind == 'f':
        if not (values == np.round(values)).all():  # also of NaN
            raise MaskError('has fractions, as probabilities or depth have, and a mask has whole numbers; save the '
                            'number of the class of each pixel')
        values = values.astype(np.float64).clip(-FARTHEST, FARTHEST).astype(np.int64)
    if values.dtype.kind not in 'iu' or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (2, 3, 4))):
        raise MaskError(f'is an array {shape} of {values.dtype}, and a mask has one number or colour for each pixel. '
                        'Of one plane for each class, save which is the highest: `planes.argmax(0)`')
    if values.ndim == 2:
        return RawMask(as_numbers(values), 'gray', note)
    return of_channels(values, note)


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Returns integers as uint8, int32 or, where they may be larger, int64: none may wrap into a class number."""
    if values.dtype == np.uint64:
        values = np.minimum(values, np.uint64(FARTHEST)).astype(np.int64)
    kind = next(kind for kind in (np.uint8, np.int32, np.int64) if np.can_cast(values.dtype, kind))
    return values.astype(kind, copy=False)


def of_channels(pixels: np.ndarray, note: str) -> RawMask:
    """Returns a mask of channels (H, W, 2 to 4), of which an even one is transparency.

    Raises:
        MaskError: its colours have more than 8 bits.
    """
    if pixels.shape[2] in (2, 4):
        colours, alpha = pixels[..., :-1], pixels[..., -1]
        if alpha.min() != alpha.max():
            if (colours == colours[0, 0]).all():
                return RawMask(as_numbers(alpha.copy()), 'gray', note or 'has its values in the transparency; all of '
                               'it has one colour')
            share = (alpha < alpha.max()).mean()
            note = note or f'has transparent pixels ({share:.1%}), which are read by their colour'
        pixels = colours
    if all((pixels[..., 0] == pixels[..., i]).all() for i in range(1, pixels.shape[2])):
        kind = 'channels' if pixels.shape[2] == 3 else 'gray'
        return RawMask(as_numbers(pixels[..., 0].copy()), kind, note)
    if pixels.max() > 255:
        if (pixels % 257).any():
            raise MaskError('has colours of 16 bits a channel; save it with 8 bits')
        pixels = pixels // 257
    return RawMask(pixels.astype(np.uint8, copy=False), 'colours', note)

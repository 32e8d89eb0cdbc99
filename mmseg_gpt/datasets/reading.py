"""Reading all bands of an image as they are in the file, and making 0 to 255 of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..wording import listed
from .headers import Header, read_header

Scale = tuple[float, float]
UNDONE = ('float16', 'uint64', 'int64')  # types that OpenCV does not read from a TIFF


class PixelError(ValueError):
    """The pixels of an image cannot be used as asked. The message names the file and what to do."""


class Bands(NamedTuple):
    """How the pixels of a file become those of an image; the arguments of ``LoadBands``.

    Attributes:
        bands: The numbers, from 1, of the bands that are taken; None for those of gray or RGB.
        scale: The values that become 0 and 255, for all bands or for each; None for 8 bits, which stay as they are.
        fill: What pixels without a number become, or None to refuse them.
        expected: The type and number of the bands of every file, as in training, or None.
    """
    bands: tuple[int, ...] | None = None
    scale: tuple | None = None
    fill: float | None = None
    expected: tuple[str, int] | None = None

    @classmethod
    def checked(cls, bands: Sequence[int] | None, scale: Scale | Sequence[Scale] | None, fill: float | None,
                expected: Sequence | None = None) -> 'Bands':
        """Makes one of arguments as people give them.

        Raises:
            ValueError: they make no sense.
        """
        if bands is not None and (not len(bands) or any(not isinstance(b, int) or b < 1 for b in bands)):
            raise ValueError(f'bands is {bands}; it must be numbers from 1, such as (3, 2, 1)')
        if scale is not None:
            pairs = [scale] if np.ndim(scale) == 1 else scale
            if any(len(pair) != 2 or not -np.inf < pair[0] < pair[1] < np.inf for pair in pairs):
                raise ValueError(f'scale is {scale}; it must be a low and a higher value, such as (0, 3000), or such a '
                                 'pair for each band')
            scale = tuple(tuple(pair) for pair in pairs)
            if len(scale) > 1 and bands is not None and len(scale) != len(bands):
                raise ValueError(f'scale has {len(scale)} pairs for {len(bands)} bands; give one pair, or one for each')
        if fill is not None and not 0 <= fill <= 255:
            raise ValueError(f'fill is {fill}; it must be from 0 to 255')
        return cls(None if bands is None else tuple(bands), scale, fill, expected and tuple(expected))

    def problems(self, header: Header, path: str | Path) -> list[str]:
        """Says why a file cannot be read like this, judging by its header."""
        if self.expected and self.expected != (header.dtype, header.bands):
            return [f'{path} has {header.described}, and images were {self.expected[1]} of {self.expected[0]} in '
                    'training (expected of LoadBands): predict on images of the same kind']
        if self.bands and max(self.bands) > header.bands:
            return [f'{path} has {header.described}, but bands {listed(self.bands)} are asked for']
        if self.bands is None and not header.colours:
            return [f'{path} has {header.described}, which are not said to be red, green and blue: say which are, as '
                    f'in bands={tuple(range(min(3, header.bands), 0, -1))}']
        if self.scale is None and header.dtype != 'uint8':
            return [f'{path} has {header.described}: say which values are black and white, as in scale=(0, 3000)']
        return []


def read_bands(path: str | Path, header: Header | None = None) -> np.ndarray:
    """Reads all bands of an image, (H, W, bands), in the order and the type of the file: red first, alpha last.

    EXIF orientation is not applied. A channel order other than OpenCV's may be a view of negative strides.

    Args:
        path: A local file.
        header: Its header, if it has been read.

    Raises:
        PixelError: the file cannot be decoded, or needs a package that is not installed.
    """
    header = header or read_header(path)
    pixels = None
    if header.colours and header.pages == 1 and header.dtype not in UNDONE and not (header.misread or header.turned):
        pixels = decoded(path)
    by_opencv = pixels is not None
    pixels = with_tifffile(path, header) if pixels is None and header.format == 'TIFF' else pixels
    if pixels is None:
        raise PixelError(f'{path} cannot be decoded by OpenCV')
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if by_opencv:  # blue first
        channels = pixels.shape[2]
        if header.bands == 2 and channels == 4:  # gray and alpha
            pixels = pixels[..., [0, 3]]
        elif channels == 4:
            pixels = pixels[..., [2, 1, 0, 3][:max(3, header.bands)]]
        elif channels == 3:
            pixels = pixels[..., ::-1]
    if (pixels.dtype.name, pixels.shape[2]) != (header.dtype, header.bands):
        raise PixelError(f'{path} has {header.described} by its header, but was decoded as {pixels.shape[2]} of '
                         f'{pixels.dtype}: save it in another way, as a plain TIFF or PNG')
    return pixels


def decoded(path: str | Path) -> np.ndarray | None:
    """Returns the pixels of an image as OpenCV decodes them, unchanged; None if it does not.

    Pipelines decode likewise what is in memory. ``cv2.imread`` of OpenCV 5 fails for a TIFF that is to be turned.
    """
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)


def with_tifffile(path: str | Path, header: Header) -> np.ndarray:
    """Reads a TIFF of any number of bands; (H, W, bands) in the order of the file.

    Raises:
        PixelError: tifffile is not there, or lacks what the compression needs.
    """
    try:
        import tifffile
        pixels = tifffile.imread(path, key=range(header.pages) if header.pages > 1 else 0)
    except ImportError as error:
        raise PixelError(f'{path} has {header.described}, which OpenCV does not read: '
                         "pip install 'mmseg_gpt[bands]'") from error
    except ValueError as error:
        if 'imagecodecs' not in str(error):
            raise
        raise PixelError(f"{path} is compressed in a way that needs imagecodecs: pip install 'mmseg_gpt[bands]'"
                         ) from error
    if pixels.ndim == 3 and pixels.shape[1:] == header.size[::-1] and pixels.shape[0] == header.bands:
        pixels = pixels.transpose(1, 2, 0)  # a plane for each band
    return pixels


def scaled(pixels: np.ndarray, how: Bands, path: str | Path, header: Header | None = None,
           rounded: bool = True) -> np.ndarray:
    """Makes an image of 0 to 255 of the bands of a file, as ``LoadBands`` says it.

    Args:
        pixels: (H, W, bands) in the order of the file.
        how: Which bands, by which scale.
        path: The file, for messages.
        header: That of the file, if it is one; alpha and the value of no data are known by it.
        rounded: Whether the result is uint8, or else float32.

    Returns:
        ndarray: (H, W, 3), blue first; (H, W, n) in the order asked for of any other number of bands.

    Raises:
        PixelError: there are pixels without a number and no ``fill``; or a band that is not there is asked for.
    """
    count = pixels.shape[2] - (header is not None and header.alpha)
    bands = how.bands or ((1, 1, 1) if count == 1 else (1, 2, 3))
    if max(bands) > pixels.shape[2]:
        raise PixelError(f'{path} has {pixels.shape[2]} bands, but bands {listed(bands)} are asked for')
    if how.scale is None and pixels.dtype != np.uint8:
        raise PixelError(f'{path} has {pixels.dtype} values: say which are black and white, as in scale=(0, 3000)')
    scales = (how.scale or ((0, 255), )) * (len(bands) if how.scale is None or len(how.scale) == 1 else 1)
    if len(scales) != len(bands):
        raise PixelError(f'{path} cannot be read: scale has {len(scales)} pairs for {len(bands)} bands')
    order = range(len(bands))[::-1] if len(bands) == 3 else range(len(bands))
    image = np.empty((*pixels.shape[:2], len(bands)), np.uint8 if rounded else np.float32)
    for place, i in enumerate(order):
        values = pixels[..., bands[i] - 1]
        if how.scale is None:
            image[..., place] = values
            continue
        missing = without_number(values, header.nodata if header else None)
        if missing is not None and how.fill is None:
            raise PixelError(f'{path} has {missing.sum():,} pixels without a number (NaN, infinite or no data): '
                             'fill=0 makes them black')
        image[..., place] = one_band(values, scales[i], how.fill, missing, rounded)
    return image


def without_number(values: np.ndarray, nodata: float | None = None) -> np.ndarray | None:
    """Returns which values (H, W) are NaN, infinite or the file's value of no data; None if none is."""
    missing = None if values.dtype.kind != 'f' or np.isfinite(values).all() else ~np.isfinite(values)
    if nodata is not None and (same := values == nodata).any():
        missing = same if missing is None else missing | same
    return missing


def one_band(values: np.ndarray, scale: Scale, fill: float | None, missing: np.ndarray | None,
             rounded: bool) -> np.ndarray:
    """Makes 0 to 255 of the values (H, W) of a band, and ``fill`` of those that are missing."""
    low, high = scale
    values = values.astype(np.float64 if values.dtype.itemsize > 2 and values.dtype != np.float32 else np.float32)
    values -= low
    values *= 255 / (high - low)
    values = np.clip(values, 0, 255, out=values)
    if missing is not None:
        values[missing] = fill
    return np.rint(values, out=values) if rounded else values

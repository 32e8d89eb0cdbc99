"""The judgement of what a pipeline's reader makes of an image's pixels, by its header first.

The usual reader of mmsegmentation and mmpretrain is OpenCV's. It takes the high byte of 16 bits, lets signed values
wrap, takes one band of several that are not said to be colours, cuts high dynamic range at 1 and reads no other floats.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .headers import LIMIT_VARIABLE, MOST_PIXELS, Header
from .reading import Bands, PixelError, decoded, read_bands

FEWEST_GRAYS = 64  # of 256; below, 16 bits are used so little that their high byte shows little of the image
SAMPLE = 2**20  # pixels looked at, of an image that has more


class Reader(NamedTuple):
    """The reader of a pipeline, as far as checks must know it.

    Attributes:
        bands: How ``LoadBands`` reads; None for the usual reader.
        judged: Whether it is known what the reader makes of pixels.
    """
    bands: Bands | None = None
    judged: bool = True


USUAL = Reader()


def pixel_problems(path: str | Path, header: Header, reader: Reader = USUAL) -> list[str]:
    """Says what a reader would do wrong with an image. Decodes it only if it has 16 bits.

    Args:
        path: A local image file.
        header: Its header.
        reader: The reader.
    """
    width, height = header.size
    if width * height > MOST_PIXELS:
        return [f'{path} has {width:,}x{height:,} pixels, and OpenCV reads {MOST_PIXELS:,} at most: cut it into tiles, '
                f'or set {LIMIT_VARIABLE}={width * height} before Python starts']
    if header.animated:
        return [f'{path} is an animation, and an image is one picture: save the one that is meant as a PNG']
    if not reader.judged:
        return []
    if reader.bands is not None:
        return reader.bands.problems(header, path)
    if header.dtype == 'uint16' and header.colours:
        try:
            pixels = read_bands(path, header) if header.misread else decoded(path)
        except PixelError as error:
            return [str(error)]
        return few_grays(pixels, path, header)
    if header.straight and header.dtype == 'uint8' and header.colours:
        return half_transparent(path, header)
    if not (faults := usual_faults(header)) and not cv2.haveImageReader(str(path)):
        return [f'{path} is of the format {header.format}, which this OpenCV does not read: save it as a PNG']
    return [f'{path} has {header.described}: {wrong}. {remedy(header)}' for wrong in faults]


def half_transparent(path: str | Path, header: Header) -> list[str]:
    """Refuses a TIFF with pixels that are neither opaque nor transparent, which OpenCV would make darker."""
    pixels = decoded(path)
    alpha = None if pixels is None or pixels.ndim < 3 else pixels[..., -1]
    if alpha is None or not ((alpha > 0) & (alpha < 255)).any():
        return []
    return [f'{path} has {header.described}, the last of which is alpha: OpenCV multiplies the colours by it, so that '
            f'half-transparent pixels become dark. {remedy(header, (1, 1, 1) if header.bands == 2 else (1, 2, 3))}']


def usual_faults(header: Header) -> list[str]:
    """Says what the usual reader does to an image that it cannot read as it is, judging by the header."""
    if header.format in ('HDR', 'EXR', 'PFM'):
        return ['loading it would cut whatever is brighter than white']
    if header.dtype in ('int8', 'int16'):
        return ['loading it would wrap negative values into bright ones']
    if header.dtype not in ('uint8', 'uint16'):
        return ['OpenCV makes no 8-bit image of it']
    if header.pages > 1:
        return [f'loading it would take the first of its {header.pages} pages alone']
    if header.colours:
        return []
    if header.bands > 4:
        return ['OpenCV reads 4 at most']
    return ['loading it would drop bands, as they are not said to be red, green, blue and alpha']


def remedy(header: Header, bands: tuple[int, ...] | None = None, scale: tuple | None = None) -> str:
    """Says how an image of this kind can be read, with numbers as examples where none are given."""
    bands = bands or recommended_bands(header)
    scale = scale or (None if header.dtype == 'uint8' else (0, 1 if header.dtype.startswith('float') else 3000))
    typed = [*([f'--bands {",".join(map(str, bands))}'] if bands else []),
             *([f'--scale {scale[0]:g}:{scale[1]:g}'] if scale else [])]
    said = [*([f'bands={bands}'] if bands else []), *([f'scale=({scale[0]:g}, {scale[1]:g})'] if scale else [])]
    return (f'Say how to read it, as with {" ".join(typed)}: in a config, '
            f"dict(type='LoadBands', {', '.join(said)}) in the place of LoadImageFromFile")


def recommended_bands(header: Header) -> tuple[int, ...] | None:
    """Returns an example of which bands are red, green and blue; None where the file says it.

    Satellites' files mostly begin with blue.
    """
    if header.colours:
        return None
    return {2: (1, 1, 1), 3: (1, 2, 3)}.get(header.bands, (1, 2, 3) if header.begins_red else (3, 2, 1))


def few_grays(pixels: np.ndarray | None, path: str | Path, header: Header) -> list[str]:
    """Refuses a 16-bit image of whose values only the high byte would be loaded, if it uses few of them."""
    if pixels is None or pixels.dtype != np.uint16:
        return []
    step = max(1, round((pixels.size / SAMPLE)**0.5))
    counts = np.bincount(pixels[::step, ::step].ravel(), minlength=2**16)
    values = np.flatnonzero(counts)
    low, high = int(values[0]), int(pixels.max())
    grays = len(np.unique(values >> 8))
    if high <= 255:
        return [f'{path} has 16 bits a channel but no value above {high}; it would be loaded as black, because only '
                f'the high byte is taken. Multiply it by 257, or save it with 8 bits. {remedy(header, None, (0, 255))}']
    if grays > FEWEST_GRAYS or len(values) < 2 * grays:
        return []
    return [f'{path} has 16 bits a channel and values from {low} to {high}; it would be loaded with {grays} of 256 '
            f'grays, because only the high byte is taken. {remedy(header, None, recommended_scale(counts))}']


def recommended_scale(counts: np.ndarray, lowest: int = 0) -> tuple[float, float]:
    """Returns a scale that hardly any value lies outside of, in round numbers.

    Args:
        counts: Number of pixels by value.
        lowest: The value of the first.
    """
    shares = np.cumsum(counts) / max(counts.sum(), 1)
    low, high = (lowest + int(np.searchsorted(shares, share)) for share in (0.001, 0.999))
    return round_scale(low, high)


def round_scale(low: float, high: float) -> tuple[float, float]:
    """Widens a range of values to two digits; one that begins near 0 begins at 0."""
    unit = 10.0**(np.floor(np.log10(max(abs(low), abs(high), 1e-30))) - 1)
    low = 0. if 0 <= low <= (high - low) / 4 else float(np.floor(low / unit) * unit)
    high = float(np.ceil(high / unit) * unit)
    low, high = (float(f'{value:.6g}') for value in (low, max(high, low + unit)))
    return low, high

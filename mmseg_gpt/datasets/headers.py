"""Reads from the header of an image file what its pixels are, without decoding any.

Importing this module raises Pillow's limit for what it takes for a decompression bomb, 179 million pixels, to that of
OpenCV: local files are read by both.
"""

import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image, TiffImagePlugin

# OpenCV's own limit, which it reads from the environment as it is loaded.
LIMIT_VARIABLE = 'OPENCV_IO_MAX_IMAGE_PIXELS'
MOST_PIXELS = int(os.environ.get(LIMIT_VARIABLE, '')) if os.environ.get(LIMIT_VARIABLE, '').isdigit() else 2**30
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MOST_PIXELS)

TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# Tags of a TIFF; the last is GDAL's.
REDUCED, WIDTH, HEIGHT, BITS, COLOUR, TURN, SAMPLES, PLANAR = 254, 256, 257, 258, 262, 274, 277, 284
EXTRA, FORMAT, NODATA = 338, 339, 42113
GRAY, RGB, PALETTE, CMYK, YCBCR = (0, 1), 2, 3, 5, 6  # values of COLOUR
ALPHA, STRAIGHT = (1, 2), 2  # values of EXTRA
PNG_DEPTH, PNG_COLOUR = 24, 25  # offsets in a PNG file; colour 0 is gray
PNG_BANDS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
MODES = {'1': ('uint8', 1), 'L': ('uint8', 1), 'P': ('uint8', 3), 'LA': ('uint8', 2), 'PA': ('uint8', 4),
         'RGBA': ('uint8', 4), 'RGBX': ('uint8', 3), 'La': ('uint8', 2), 'RGBa': ('uint8', 4), 'I': ('int32', 1),
         'F': ('float32', 1)}


class Header(NamedTuple):
    """What a file says of its image.

    Attributes:
        format: ``PNG``, ``TIFF``, ``JPEG``, ``HDR`` and so on, by the content of the file.
        dtype: numpy's name of the type of the pixels. 1-bit, palette and CMYK images count as the 8-bit colours that
            readers make of them.
        bands: Number of bands, alpha among them.
        size: Width and height in pixels.
        colours: Whether the bands are gray or colours, possibly with alpha, so that common readers see all of them.
        alpha: Whether the last band is alpha.
        pages: Number of images of one size in a TIFF that has a band in each; else 1.
        nodata: The file's value for empty pixels, or None.
        begins_red: Whether a TIFF of more bands marks the first as red, green and blue.
        planar: Whether a TIFF holds its bands one after the other (PlanarConfiguration 2).
        straight: Whether a TIFF has alpha by which its colours are not multiplied (unassociated alpha).
        turned: Whether a TIFF is to be shown turned or mirrored, which OpenCV does whatever it is asked for.
        animated: Whether a GIF, PNG, WebP or AVIF has several pictures to be shown one after the other.
    """
    format: str
    dtype: str
    bands: int
    size: tuple[int, int]
    colours: bool = True
    alpha: bool = False
    pages: int = 1
    nodata: float | None = None
    begins_red: bool = False
    planar: bool = False
    straight: bool = False
    turned: bool = False
    animated: bool = False

    @property
    def misread(self) -> bool:
        """Whether OpenCV misreads the bands as they are.

        It does if they are stored one after the other and have more than 8 bits. It also multiplies 8-bit colours by an
        alpha that the file leaves unmultiplied.
        """
        return (self.planar and self.dtype != 'uint8') or (self.straight and self.dtype == 'uint8')

    @property
    def described(self) -> str:
        """What the pixels are, in words, such as ``4 bands of uint16``."""
        return f'{self.bands} band{"s" if self.bands > 1 else ""} of {self.dtype}'


def read_header(path: str | Path) -> Header:
    """Reads the header of an image.

    Raises:
        OSError: the file cannot be read, or is no image (Pillow's UnidentifiedImageError).
    """
    with open(path, 'rb') as file:
        start = file.read(64)
    if start[:4] in TIFF:
        return tiff_header(path)
    if start.startswith((b'#?RADIANCE', b'#?RGBE')):
        return radiance_header(path)
    if start.startswith(b'v/1\x01'):
        return Header('EXR', 'float32', 3, (0, 0))
    with Image.open(path) as image:
        animated = image.format in ('GIF', 'WEBP', 'PNG', 'AVIF') and getattr(image, 'is_animated', False)
        if image.format == 'PNG':
            depth, colour = start[PNG_DEPTH], start[PNG_COLOUR]
            return Header('PNG', 'uint16' if depth == 16 else 'uint8', PNG_BANDS[colour], image.size,
                          alpha=colour in (4, 6), animated=animated)
        if image.format == 'GIF':  # whose palette readers make colours of, also if all are gray
            return Header('GIF', 'uint8', 3, image.size, animated=animated)
        dtype, bands = ('uint16', 1) if image.mode.startswith('I;16') else MODES.get(image.mode, ('uint8', 3))
        if image.format == 'PPM' and image.mode == 'I':
            dtype = 'uint16'
        return Header('PFM' if dtype == 'float32' else image.format, dtype, bands, image.size, alpha=bands in (2, 4),
                      animated=animated)


def tiff_header(path: str | Path) -> Header:
    """Reads the header of a TIFF, also of one that Pillow has no mode for."""
    pages, first = [], {}
    with open(path, 'rb') as file:
        start = file.read(16)
        tags = TiffImagePlugin.ImageFileDirectory_v2(start if b'+' in start[2:4] else start[:8])
        place, seen = tags.next, set()
        while place and place not in seen:
            seen.add(place)
            file.seek(place)
            tags.load(file)
            if not int(tags.get(REDUCED) or 0):  # neither a smaller copy nor a mask
                pages.append((int(tags[WIDTH]), int(tags[HEIGHT])))
                first = first or {tag: tags.get(tag) for tag in (
                    BITS, COLOUR, TURN, SAMPLES, PLANAR, EXTRA, FORMAT, NODATA)}
            place = tags.next
    if not pages:
        raise OSError('a TIFF without an image')
    bits = max(first[BITS]) if first[BITS] else 1
    kind = {2: 'int', 3: 'float'}.get(max(first[FORMAT] or (1, )), 'uint')
    samples, extra, colour = int(first[SAMPLES] or 1), first[EXTRA] or (), first[COLOUR]
    extra = extra if isinstance(extra, tuple) else (extra, )
    same = pages.count(pages[0]) if samples == 1 and colour != PALETTE else 1
    alpha = len(extra) == 1 and extra[0] in ALPHA
    plain = samples - alpha == {RGB: 3, YCBCR: 3, CMYK: 4, PALETTE: 1}.get(colour, 1 if colour in GRAY else 0)
    bands = 3 if colour in (PALETTE, CMYK) and plain else samples
    return Header('TIFF', f'{kind}{max(8, bits)}', max(bands, same), pages[0], plain and same == 1, alpha, same,
                  as_number(first[NODATA]), colour == RGB, samples > 1 and first[PLANAR] == 2,
                  alpha and extra[0] == STRAIGHT, first[TURN] in range(2, 9))


def as_number(text: str | None) -> float | None:
    """Reads a number, such as GDAL's value of no data; None where there is none."""
    try:
        return float(str(text).strip('\0 '))
    except ValueError:
        return None


def radiance_header(path: str | Path) -> Header:
    """Reads the header of a Radiance picture (.hdr), whose pixels are floats without an upper end."""
    with open(path, 'rb') as file:
        for line in iter(file.readline, b''):
            words = line.split()
            if len(words) == 4 and words[0][1:] in (b'Y', b'X'):
                sides = {words[0][1:]: int(words[1]), words[2][1:]: int(words[3])}
                return Header('HDR', 'float32', 3, (sides[b'X'], sides[b'Y']))
    raise OSError('a Radiance picture without a size')

"""Checks of an image file and its label map. Every problem is a sentence that names the file.

mmsegmentation's pipelines load an image with OpenCV, which applies the EXIF orientation; :mod:`.judging` says what it
makes of the pixels. They load a label map with Pillow, which does not rotate, and cut its values to 8 bits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..files import misnamed
from ..wording import listed
from .damage import damage
from .headers import PNG_COLOUR, PNG_DEPTH, read_header
from .judging import USUAL, Reader, pixel_problems
from .reading import PixelError, decoded, read_bands, scaled

ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
UPRIGHT = ("python -c 'import sys; from PIL import Image, ImageOps; "
           "[ImageOps.exif_transpose(Image.open(f)).save(f, quality=95) for f in sys.argv[1:]]' FILES")
ONE_NUMBER_A_PIXEL = ('L', 'P', '1')
# The end of a complete file. Other bytes may follow it, so a file that ends otherwise is decoded before it is refused.
ENDS = {'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
VALUES = 8  # wrong values in a message


class LabelRule(NamedTuple):
    """The meaning of the values in label maps.

    Attributes:
        num_classes: Number of classes, or None if it is not known.
        ignore_index: Class number of ignored pixels.
        reduce_zero_label: Whether 0 becomes ignored and every other value one less.
        label_map: The class number to train for each class number in the files, or None.
    """
    num_classes: int | None = None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    label_map: Mapping[int, int] | None = None

    def class_of_value(self) -> np.ndarray:
        """Returns the class number (256,) that each 8-bit value becomes, computed as ``LoadAnnotations`` does."""
        classes = np.arange(256)
        if self.reduce_zero_label:
            classes = np.where((classes == 0) | (classes == 255), 255, classes - 1)
        mapped = classes.copy()
        for old, new in (self.label_map or {}).items():
            mapped[classes == old] = new
        return mapped

    def value_of_class(self, number: int) -> np.ndarray:
        """Returns the value (C,) of each of the first ``number`` classes in the label files.

        Args:
            number: Number of classes.

        Raises:
            ValueError: a class has no value of its own, because ``label_map`` makes it from several or from none.
        """
        classes = self.class_of_value()
        values = [np.flatnonzero(classes == label) for label in range(number)]
        if unclear := [label for label, found in enumerate(values) if len(found) != 1]:
            raise ValueError(f'the classes {listed(unclear, VALUES)} have no value of their own in the label files, '
                             'by the label_map of the dataset; write the numbers of the model')
        return np.concatenate(values) if values else np.zeros(0, int)

    def wrong_values(self) -> np.ndarray:
        """Returns for each 8-bit value (256,) whether it is wrong: it becomes neither a class nor ignored."""
        classes = self.class_of_value()
        limit = 256 if self.num_classes is None else self.num_classes
        return (classes >= limit) & (classes != self.ignore_index)


class Inspection(NamedTuple):
    """The findings of :func:`inspect_pair`.

    Attributes:
        problems: One sentence for each problem.
        size: Width and height of the image in pixels; None if it cannot be read.
        pixels: Number of label pixels (256,) by their value in the file, or None if no label map can be read.
    """
    problems: list[str]
    size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None


def check_headers(image: str | Path, label: str | Path | None = None, rotates: bool = True,
                  reader: Reader = USUAL) -> list[str]:
    """Checks the first and last bytes of the files; decodes pixels only in case of doubt.

    Args:
        image: Image file.
        label: Its label map, or None if there is none.
        rotates: Whether the image is rotated according to its EXIF orientation when it is loaded.
        reader: The reader that loads the image.

    Returns:
        list: The problems; empty if there are none.
    """
    problems = [problem for file in (image, label) if file is not None and (problem := misnamed(file))]
    if problems:
        return problems
    size = check_image_header(image, label is not None and rotates, problems, reader)
    if label is None:
        return problems
    label_size = check_label_header(label, problems)
    if problems or size is None or label_size is None:
        return problems
    if size != label_size:
        problems.append(f'{label} has {label_size[0]}x{label_size[1]} pixels, but its image {image} has '
                        f'{size[0]}x{size[1]}')
    elif min(size) < 2:
        problems.append(f'{image} has {size[0]}x{size[1]} pixels; labelled images need 2 at least on each side')
    return problems


def inspect_pair(image: str | Path, label: str | Path | None = None, rule: LabelRule | None = None,
                 rotates: bool = True, reader: Reader = USUAL) -> Inspection:
    """Checks an image and its label map completely: everything in :func:`check_headers`, and every pixel.

    Args:
        image: Image file.
        label: Its label map, or None if there is none.
        rule: The right label values; default all.
        rotates: Whether the image is rotated according to its EXIF orientation when it is loaded.
        reader: The reader that loads the image.

    Returns:
        Inspection: The problems, and the size and label values as far as they can be read.
    """
    problems = check_headers(image, label, rotates, reader)
    if misnamed(image):
        return Inspection(problems)
    size, problem = decode_image(image, reader)
    if problem and not problems:
        problems.append(problem)
    if label is None:
        return Inspection(problems, size)
    pixels = None
    try:
        values = read_label(label)
        if values.ndim == 2 and not wide_values(values):
            pixels = np.bincount(values.astype(np.uint8).ravel(), minlength=256)
            problems += check_values(pixels, rule or LabelRule(), label)
    except Exception as error:  # Pillow raises many types for damaged files
        if not problems:
            problems.append(f'{label} cannot be decoded: {error_line(error)}')
    return Inspection(problems, size, pixels)


def check_values(pixels: np.ndarray, rule: LabelRule, label: str | Path) -> list[str]:
    """Finds values of a label map that become neither a class nor ignored.

    Args:
        pixels: Number of pixels (256,) by value in the file.
        rule: The right values.
        label: The file, for the message.

    Returns:
        list: One sentence, or none if all values are right.
    """
    wrong = np.flatnonzero(rule.wrong_values() & (pixels > 0))
    if not len(wrong):
        return []
    reduced = rule.reduce_zero_label
    allowed = f'{int(reduced)} to {rule.num_classes - 1 + reduced}' if rule.num_classes else 'none'
    problem = (f'{label} has the values {listed(wrong, VALUES)} in {pixels[wrong].sum():,} pixels; right are '
               f'{allowed}, for {rule.num_classes} classes, and those that are ignored')
    if not reduced and pixels[0] and list(wrong) == [rule.num_classes]:
        problem += '. If 0 means "not labelled", set reduce_zero_label=True'
    return [problem]


def check_image_header(path: str | Path, rotates: bool, problems: list[str],
                       reader: Reader = USUAL) -> tuple[int, int] | None:
    """Returns the width and height of an image, if its file can be opened; appends to ``problems``."""
    try:
        header = read_header(path)
        problems += pixel_problems(path, header, reader)
        if header.format in ('TIFF', 'HDR', 'EXR') and not rotates:
            return header.size  # Pillow does not open all of them
        with open_image(path) as image:
            if rotates and (orientation := orientation_of(image)) != 1:
                problems.append(f'{path} has EXIF orientation {orientation}: it would be loaded rotated or mirrored, '
                                'but its label would not. On copies of the images, this saves them upright, without '
                                f'that tag: {UPRIGHT} - or, if the label fits the pixels as stored, load with '
                                "color_type='color_ignore_orientation'")
            return image.size
    except Exception as error:
        if not problems:
            problems.append(unreadable(path, error))
        return None


def check_label_header(path: str | Path, problems: list[str]) -> tuple[int, int] | None:
    """Returns the width and height of a label map, if its file can be opened; appends to ``problems``."""
    try:
        with open_image(path) as image:
            if is_jpeg(image):
                inside = ' inside' if image.format == 'TIFF' else ''
                problems.append(f'{path} is a JPEG{inside}, which blurs label values; save label maps as PNG')
            elif image.mode.startswith('I'):  # 16 or 32 bits
                if wide := wide_values(np.array(image)):
                    problems.append(f'{path} has {image.mode} pixels and values such as {listed(wide, VALUES)}, which '
                                    'loading would wrap into 0 to 255; save it with 8 bits')
            elif image.mode not in ONE_NUMBER_A_PIXEL:
                problems.append(f'{path} is a label map in {image.mode} mode, and needs one class number a pixel: '
                                '8-bit gray, or a palette')
            elif image.format == 'PNG' and has_scaled_gray(path):
                problems.append(f'{path} is a gray PNG of 2 or 4 bits a pixel, whose values Pillow multiplies by 85 '
                                'or 17; save it with 8 bits')
            return image.size
    except Exception as error:
        problems.append(unreadable(path, error))
        return None


def open_image(path: str | Path) -> Image.Image:
    """Opens an image file. Decodes its pixels, which may raise an error, only if the usual end is missing."""
    image = Image.open(path)
    end = ENDS.get(image.format)
    if end is not None:
        with open(path, 'rb') as file:
            file.seek(-min(len(end), file.seek(0, 2)), 2)
            if file.read() != end:
                image.load()
    return image


def decode_image(path: str | Path, reader: Reader = USUAL) -> tuple[tuple[int, int] | None, str | None]:
    """Decodes all of an image, also with the reader of the pipelines; returns its size and what is wrong."""
    try:
        if reader.bands is not None:
            header = read_header(path)
            scaled(read_bands(path, header), reader.bands, path, header)
            return header.size, None
        with Image.open(path) as image:
            size = image.size
            image.load()  # raises for a truncated file, where OpenCV would fill the rest with gray
        pixels = decoded(path)
    except PixelError as error:
        return None, str(error)
    except Exception as error:
        return None, unreadable(path, error)
    return size, f'{path} cannot be decoded by OpenCV' if pixels is None else None


def read_label(path: str | Path) -> np.ndarray:
    """Reads the values of a label map as ``LoadAnnotations`` does; (H, W) if it has one number a pixel."""
    with Image.open(path) as image:
        return np.array(image)


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8."""
    if 'exif' not in image.info and image.format != 'TIFF':
        return 1  # asking a PNG further would decode it
    orientation = image.getexif().get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def is_jpeg(image: Image.Image) -> bool:
    """Says whether an opened image is a JPEG, or a TIFF that is compressed as one."""
    return image.format in ('JPEG', 'MPO') or (image.format == 'TIFF' and 'jpeg' in image.info.get('compression', ''))


def has_scaled_gray(path: str | Path) -> bool:
    """Says whether Pillow would stretch the values of a PNG to 0..255, because it is gray with 2 or 4 bits."""
    return png_byte(path, PNG_COLOUR) == 0 and png_byte(path, PNG_DEPTH) in (2, 4)


def png_byte(path: str | Path, place: int) -> int:
    """Reads one byte of the header of a PNG."""
    with open(path, 'rb') as file:
        file.seek(place)
        return file.read(1)[0]


def wide_values(values: np.ndarray) -> list[int]:
    """Returns the sorted values that do not fit into 8 bits."""
    if values.dtype in (np.uint8, bool):
        return []
    return np.unique(values[(values < 0) | (values > 255)]).tolist()


def unreadable(path: str | Path, error: Exception) -> str:
    """Says why a file cannot be read."""
    if not Path(path).is_file():
        return f'{path} is not there'
    if not Path(path).stat().st_size:
        return f'{path} is empty (0 bytes)'
    if isinstance(error, OSError) and error.strerror:
        return f'{path} cannot be read: {error.strerror}'
    if isinstance(error, UnidentifiedImageError):
        return f'{path} {damage(path) or "is not an image, or its beginning is damaged"}'
    return f'{path} cannot be decoded, it is truncated or damaged: {error_line(error)}'


def error_line(error: Exception) -> str:
    """Writes an error as one line of text."""
    return f'{type(error).__name__}: {" ".join(str(error).split())}'

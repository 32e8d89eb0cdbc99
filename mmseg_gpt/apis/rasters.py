"""GeoTIFFs of any size: pixels are read and labels are written in parts, and labels keep the georeference.

Reading and writing are rasterio's, of the extra ``geo``.
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import TiffImagePlugin

from ..datasets import LoadBands, SampleError
from ..datasets.headers import Header, read_header
from ..datasets.introspect import known_reader
from ..datasets.judging import usual_faults
from ..datasets.reading import Bands, scaled
from ..files import replacing
from .task import ServedTask
from .tiles import Pixels, Source

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

GEOREFERENCE = (33550, 33922, 34264, 34735)  # tags of a GeoTIFF: scale, tie points, matrix and system of coordinates
BLOCK = 512  # side in pixels of the blocks of written files
CACHE = 64  # MiB of blocks that GDAL keeps


def rasterio_of() -> ModuleType:
    """Imports rasterio.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module('rasterio')
    except ImportError as error:
        raise ValueError(f'GeoTIFFs need rasterio ({error}): pip install "mmseg_gpt[geo]"') from error


def is_georeferenced(path: str | Path) -> bool:
    """Says whether a file is a TIFF that tells where on earth it is; does not need rasterio."""
    with suppress(OSError, SyntaxError, ValueError, KeyError), open(path, 'rb') as file:
        start = file.read(16)
        if start[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            return False
        tags = TiffImagePlugin.ImageFileDirectory_v2(start if b'+' in start[2:4] else start[:8])
        file.seek(tags.next)
        tags.load(file)
        return any(tag in tags for tag in GEOREFERENCE)
    return False


@contextmanager
def opened(path: str | Path) -> Iterator['DatasetReader']:
    """Opens a TIFF by rasterio, with little memory for its cache.

    Raises:
        ValueError: rasterio is not installed.
        SampleError: the file cannot be opened.
    """
    rasterio = rasterio_of()
    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        try:
            dataset = rasterio.open(path, driver='GTiff')
        except rasterio.errors.RasterioError as error:
            why = str(error).replace(f"'{path}' ", '').replace(f'{path}: ', '')  # as GDAL begins
            raise SampleError(f'{path} cannot be read: {why}') from error
        with dataset:
            yield dataset


class RasterSource:
    """A TIFF as a :class:`.tiles.Source`, of which only what is asked for is in memory.

    Args:
        dataset: The open file.
        task: The task, whose reader says how values become those of an image.
        header: The file's header.
    """

    def __init__(self, dataset: 'DatasetReader', task: ServedTask, header: Header) -> None:
        self.dataset, self.header, self.reader = dataset, header, task.reader
        self.size = (dataset.height, dataset.width)
        self.how = task.reader.how if isinstance(task.reader, LoadBands) else Bands()

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Returns the pixels (h, w, C) of a part, as the reader of the task gives those of a whole image.

        Args:
            rows: The rows.
            columns: The columns.

        Raises:
            PixelError: there are pixels without a number, and the config does not say what they become.
            SampleError: the file is damaged.
        """
        return self.as_image(self.values(rows, columns))

    def picture(self, size: tuple[int, int]) -> np.ndarray:
        """Returns all of the image in a smaller size (h, w, C), as :meth:`read` does.

        Args:
            size: Height and width.
        """
        return self.as_image(np.moveaxis(self.dataset.read(out_shape=(self.dataset.count, *size)), 0, 2))

    def values(self, rows: slice, columns: slice) -> np.ndarray:
        """Returns the values (h, w, bands) of a part as they are in the file."""
        rasterio = rasterio_of()
        try:
            values = self.dataset.read(window=((rows.start, rows.stop), (columns.start, columns.stop)))
        except rasterio.errors.RasterioError as error:
            raise SampleError(f'{self.dataset.name} cannot be decoded, it is truncated or damaged: '
                              f'{error.__cause__ or error}') from error  # the cause has the words of GDAL
        return np.moveaxis(values, 0, 2)

    def as_image(self, values: np.ndarray) -> np.ndarray:
        """Makes an image of 0 to 255 of values (h, w, bands)."""
        if not isinstance(self.reader, LoadBands) and self.header.straight:
            values = np.where(values[..., -1:] == 0, np.uint8(0), values)  # as OpenCV shows what is transparent
        image = scaled(values, self.how, self.dataset.name, self.header, not self.reader.to_float32)
        return image.astype(np.float32, copy=False) if self.reader.to_float32 else image


def has_mask(dataset: 'DatasetReader') -> bool:
    """Says whether a file can mark pixels as empty: by a nodata value, by alpha or by a mask."""
    return rasterio_of().enums.MaskFlags.all_valid not in dataset.mask_flag_enums[0]


def missing(dataset: 'DatasetReader', rows: slice, columns: slice) -> np.ndarray:
    """Returns which pixels (h, w) of a part are empty."""
    return dataset.dataset_mask(window=((rows.start, rows.stop), (columns.start, columns.stop))) == 0


def can_stream(task: ServedTask, dataset: 'DatasetReader', header: Header, path: str | Path) -> bool:
    """Says whether parts of a TIFF by rasterio are parts of the image that the reader of a task makes of it.

    Args:
        task: The task.
        dataset: The open file.
        header: Its header.
        path: The file.

    Raises:
        SampleError: the reader cannot use the file at all, or would turn it.
    """
    reader = known_reader(task.reader)
    problems = (reader.bands.problems(header, path) if reader.bands is not None else
                [f'{path} has {header.described}: {fault}' for fault in usual_faults(header)] if reader.judged else [])
    if problems:
        raise SampleError(problems[0])
    if reader.bands is not None:
        return header.pages == 1 and dataset.count == header.bands
    if header.turned:
        raise SampleError(f'{path} has the tag Orientation, by which it would be read turned, and labels would not lie '
                          'where its georeference says: gdal_translate writes it without that tag')
    plain = dataset.colorinterp[0].name in ('gray', 'red') and dataset.tags(ns='IMAGE_STRUCTURE').get(
        'MINISWHITE') != 'YES'
    return (reader.judged and task.reader.color_type == 'color' and header.dtype == 'uint8' and header.colours
            and dataset.count == header.bands and plain)


@contextmanager
def opened_source(task: ServedTask, path: str | Path) -> Iterator[tuple['DatasetReader', Source]]:
    """Opens a TIFF; yields the file, and what reads its pixels: in parts, or all at once where that is not the same.

    Args:
        task: The task.
        path: The file.

    Raises:
        ValueError: rasterio is not installed.
        SampleError: the file cannot be read, or is another kind of image than the reader of the task is for.
    """
    header = read_header(path)
    with opened(path) as dataset:
        if can_stream(task, dataset, header, path):
            yield dataset, RasterSource(dataset, task, header)
        else:
            yield dataset, Pixels(task.read(path)['img'])


@contextmanager
def writing(path: Path, like: 'DatasetReader', dtype: str, nodata: int | None = None,
            colours: Sequence[Sequence[int]] | None = None) -> Iterator['DatasetWriter']:
    """Yields a GeoTIFF of one band to write to in parts, with the size and the georeference of another one.

    Args:
        path: The file, which appears only when it is complete.
        like: The file from which it takes size and georeference.
        dtype: Type of its values.
        nodata: The value of empty pixels, or None.
        colours: The colour (red, green, blue) of each value, or None.
    """
    rasterio = rasterio_of()
    path.parent.mkdir(parents=True, exist_ok=True)
    points, system = like.gcps
    with replacing(path) as unfinished, rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(unfinished, 'w', driver='GTiff', height=like.height, width=like.width, count=1, dtype=dtype,
                           crs=like.crs, transform=None if points else like.transform, nodata=nodata, tiled=True,
                           blockxsize=BLOCK, blockysize=BLOCK, compress='deflate', bigtiff='if_safer') as file:
            if points:
                file.gcps = points, system
            if like.rpcs:
                file.rpcs = like.rpcs
            if colours is not None:
                file.write_colormap(1, {value: tuple(colour) for value, colour in enumerate(colours)})
            yield file


def write_part(file: 'DatasetWriter', rows: slice, columns: slice, values: np.ndarray) -> None:
    """Writes values (h, w) into a part of a file."""
    file.write(values, 1, window=((rows.start, rows.stop), (columns.start, columns.stop)))

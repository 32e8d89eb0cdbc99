"""Labels of an image in tiles: pixels are read a tile at a time, and labels are given a band of rows at a time.

Tiles overlap. Where they do, the mean of their logits decides, as in mmsegmentation's sliding windows. Memory does not
grow with the image: a row of tiles is kept at most, and of a wide image a part of such a row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from ..models.labels import scores_of
from ..segmentation.bands import Windows, merge, placed
from ..segmentation.segmentor import STRIP, LeanEncoderDecoder, PredictionBuffer, band_bytes, probabilities
from .task import Image, ServedTask

SMALLEST = 2  # side of a tile in pixels


class Source(Protocol):
    """Pixels that are read in parts.

    Attributes:
        size: Height and width of the image.
    """
    size: tuple[int, int]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Returns the pixels (h, w, C) of a part, as the reader of the model's pipeline gives those of a whole image.

        Args:
            rows: The rows.
            columns: The columns.
        """


class Pixels(NamedTuple):
    """An image in memory as a :class:`Source`.

    Attributes:
        pixels: (H, W, C).
    """
    pixels: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[:2]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Returns the pixels of a part."""
        return self.pixels[rows, columns]


class Tiling(NamedTuple):
    """The tiles into which images are cut.

    Attributes:
        side: Height and width of a tile in pixels; tiles of a smaller image are smaller.
        overlap: Share of a tile that the next one covers too, from 0 to below 1.
    """
    side: int
    overlap: float = 0.25

    def windows(self, size: tuple[int, int]) -> Windows:
        """Lays out the tiles of an image; the last ones end with it.

        Args:
            size: Height and width of the image.

        Raises:
            ValueError: there are no such tiles.
        """
        if self.side < SMALLEST or not 0 <= self.overlap < 1:
            raise ValueError(f'tiles have {SMALLEST} pixels a side at least, and overlap by 0 to below 1; got '
                             f'{self.side} and {self.overlap}')
        step = max(1, round(self.side * (1 - self.overlap)))
        return Windows.sliding(size, (self.side, self.side), (step, step))


class Labeller(Protocol):
    """What labels tiles: a model, or an exported file.

    Attributes:
        channels: Number of classes, or 1 if a single channel separates foreground from background.
        threshold: Probability above which a single channel is foreground; None of several channels.
        device: The device of the logits.
    """
    channels: int
    threshold: float | None
    device: torch.device

    def windows(self, size: tuple[int, int]) -> Windows:
        """Lays out the tiles of an image, which may be one of larger size with the image at the top left.

        Args:
            size: Height and width of the image.
        """

    def logits(self, tiles: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[Tensor]:
        """Yields the logits (h, w, C) of each tile.

        Args:
            tiles: Pixels (h, w, bands); tiles at the end of the image may be smaller, or empty.
            size: Height and width of the logits, those of the tiles of :meth:`windows`.
        """

    def parts(self, tile: np.ndarray) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields the logits (n, w, C) of an image of one tile, with the rows and columns they are of.

        Args:
            tile: Pixels (h, w, bands).
        """


class TaskLabeller:
    """The model of a task that labels tiles.

    Without ``tiling`` the tiles are the model's own sliding windows, and the labels are those of the whole image; that
    needs a pipeline that does not resize images. If it does, or the model does not slide, the image is one tile. With
    ``tiling`` each tile goes through the pipeline as an image of its own.

    Args:
        task: A segmentation with a :class:`LeanEncoderDecoder`.
        tiling: The tiles.
        dtype: As for :class:`AdapterPool`.

    Raises:
        ValueError: the model is another one, or answers by several views of an image.
    """

    def __init__(self, task: ServedTask, tiling: Tiling | None = None, dtype: torch.dtype = torch.float32) -> None:
        if not isinstance(task.model, LeanEncoderDecoder) or task.augmented is not None:
            raise ValueError(f'tiles need a LeanEncoderDecoder without tta, not a {type(task.model).__name__}')
        self.task, self.model, self.tiling, self.dtype = task, task.model, tiling, dtype
        self.channels = self.model.out_channels
        self.threshold = self.model.threshold
        self.rule = self.model.data_preprocessor.test_cfg or {}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.data_preprocessor.device

    @property
    def slides(self) -> bool:
        """Whether tiles are the model's own windows."""
        return self.tiling is None and self.model.test_cfg.get('mode') == 'slide' and keeps_pixels(self.task)

    def windows(self, size: tuple[int, int]) -> Windows:
        """Lays out the tiles of an image.

        Args:
            size: Height and width of the image.
        """
        if self.tiling:
            return self.tiling.windows(size)
        return self.model.windows(padded_size(size, self.rule)) if self.slides else Windows.whole(size)

    @torch.no_grad()
    def logits(self, tiles: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[Tensor]:
        """Yields the logits (h, w, C) of each tile.

        Args:
            tiles: Pixels (h, w, bands), as the reader of the pipeline gives them.
            size: Height and width of the model's own windows, to which their tiles are padded. Other tiles have them.
        """
        if self.slides:
            yield from self.logits_of_windows(iter(tiles), size)
            return
        for tile in tiles:
            found = None
            for rows, columns, logits in self.parts(tile):
                if found is None:
                    found = logits.new_empty((*tile.shape[:2], self.channels))
                found[rows, columns] = logits
            yield found

    @torch.no_grad()
    def parts(self, tile: np.ndarray) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields the logits (n, w, C) of a tile that goes through the pipeline as an image of its own.

        Args:
            tile: Pixels (h, w, bands), as the reader of the pipeline gives them.
        """
        data = self.task.transform(as_sample(tile))
        batch = self.model.data_preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))
        parts = self.model.patches(batch['inputs'][0], batch['data_samples'][0].metainfo)
        while True:
            with self.computing():  # which must not hold while others compute
                part = next(parts, None)
            if part is None:
                return
            yield part

    def computing(self) -> torch.autocast:
        """Returns the context in which the model computes in ``dtype``."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def logits_of_windows(self, tiles: Iterator[np.ndarray], size: tuple[int, int]) -> Iterator[Tensor]:
        """Does what :meth:`logits` does, for the model's own windows, several at a time as it takes them.

        Windows that lie in the padding of the image get zeros, as they are not used.
        """
        number = self.model.test_cfg.get('window_batch', 1 if self.device.type == 'cpu' else 8)
        for same in in_batches(tiles, number):
            if not same[0].size:
                yield from torch.zeros((len(same), *size, self.channels), device=self.device)
                continue
            data = [self.task.transform(as_sample(tile)) for tile in same]
            batch = self.model.data_preprocessor({key: [each[key] for each in data] for key in data[0]})
            inputs = batch['inputs'][..., :size[0], :size[1]]
            inputs = F.pad(inputs, (0, size[1] - inputs.shape[3], 0, size[0] - inputs.shape[2]),
                           value=self.model.data_preprocessor.pad_val)
            meta = dict(batch['data_samples'][0].metainfo, img_shape=torch.Size(inputs.shape[2:]))
            with self.computing():
                logits = self.model.encode_decode(inputs, [meta] * len(inputs))
            yield from logits.permute(0, 2, 3, 1)


def logits_in_tiles(labeller: Labeller, source: Source,
                    strip: int = STRIP) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields the logits (h, w, C) of an image, each pixel once, with the rows and columns they are of.

    Use them before asking for the next: they may be a view of memory that is written again.

    Args:
        labeller: The model, or exported file, that labels the tiles.
        source: The image.
        strip: Bytes of the logits of a row of tiles, above which it is computed in parts, tiles on their border twice.
    """
    (height, width), windows = source.size, labeller.windows(source.size)
    if windows.size == source.size:  # all classes of a whole image would be large
        yield from labeller.parts(source.read(slice(0, height), slice(0, width)))
        return
    most = strip // (4 * labeller.channels * windows.size[0])
    for columns, offset, panel in windows.panels(max(1, most)):
        band = max(1, band_bytes(labeller.device) // (panel.image[1] * labeller.channels * 4))
        columns = slice(columns.start, min(columns.stop, width))
        found = labeller.logits(tiles_of(source, panel, offset), panel.size)
        for rows, logits in placed(merge(found, panel, torch.float32, band)):
            logits = logits[:max(0, height - rows.start), columns.start - offset:columns.stop - offset]
            if logits.numel():
                yield slice(rows.start, rows.start + len(logits)), columns, logits


def tiles_of(source: Source, windows: Windows, offset: int) -> Iterator[np.ndarray]:
    """Yields the pixels of windows, as far as the image goes; an empty array where it does not.

    Args:
        source: The image.
        windows: The windows.
        offset: The column of the image where those with ``left`` 0 begin.
    """
    for top, left in windows.places:
        rows = slice(top, min(top + windows.size[0], source.size[0]))
        columns = slice(offset + left, min(offset + left + windows.size[1], source.size[1]))
        is_empty = rows.start >= rows.stop or columns.start >= columns.stop
        yield np.empty((0, 0, 0)) if is_empty else source.read(rows, columns)


def predict_in_tiles(labeller: TaskLabeller, image: Image, meta: dict | None = None,
                     report: Callable[[float], None] | None = None) -> SegDataSample:
    """Labels an image that is in memory in tiles.

    Args:
        labeller: A task and its tiles.
        image: A file, or the pixels, as for :meth:`ServedTask.read`.
        meta: What to return, as the metainfo of a sample, see :class:`LeanEncoderDecoder`.
        report: Called now and then with the share of the image that is labelled.

    Returns:
        SegDataSample: The answer, as :meth:`AdapterPool.predict` gives it.
    """
    source = Pixels(labeller.task.read(image)['img'])
    sample = SegDataSample(metainfo=dict(meta or {}, ori_shape=source.size, img_shape=source.size))
    buffer = PredictionBuffer(labeller.model, sample, torch.device('cpu'))
    for rows, columns, logits in logits_in_tiles(labeller, source):
        buffer.fill(rows, columns, scores_of(logits), lambda logits=logits: probabilities(logits))
        if report:
            report(buffer.done / buffer.labels.numel())
    buffer.put_into(sample)
    return sample


def padded_size(size: tuple[int, int], rule: Mapping) -> tuple[int, int]:
    """Returns the height and width that a preprocessor makes of an image of ``size``, at its bottom and right.

    Args:
        size: Height and width of the image.
        rule: ``test_cfg`` of the preprocessor: the least ``size``, or the ``size_divisor``, or neither.
    """
    least, divisor = rule.get('size') or size, rule.get('size_divisor') or 1
    return tuple(-(-max(side, other) // divisor) * divisor for side, other in zip(size, least))


def keeps_pixels(task: ServedTask) -> bool:
    """Says whether the pipeline of a task leaves the pixels of an image as they were read."""
    return all(type(step).__name__ in ('PackSegInputs', 'PackInputs') for step in task.transform.transforms)


def as_sample(pixels: np.ndarray) -> dict:
    """Returns the dict that transforms take, for pixels (h, w, C) as a reader gives them."""
    return dict(img=np.ascontiguousarray(pixels), img_path=None, img_shape=pixels.shape[:2],
                ori_shape=pixels.shape[:2])


def in_batches(tiles: Iterator[np.ndarray], number: int) -> Iterator[list[np.ndarray]]:
    """Yields tiles in lists of up to ``number``, each of one size."""
    while batch := list(islice(tiles, number)):
        for _, same in groupby(batch, lambda tile: tile.shape):
            yield list(same)

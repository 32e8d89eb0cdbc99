"""Large images labelled by an ONNX file, in the windows that its model slides or in tiles of any size."""

import copy
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import Resize
from torch import Tensor

from ..apis.tiles import Pixels, Source, Tiling, as_sample, logits_in_tiles, padded_size
from ..models.labels import labels_of, scores_of
from ..segmentation.bands import Windows, placed, resize
from ..segmentation.segmentor import band_bytes
from ..wording import listed
from . import onnx_file
from .write import changes_of


class FileLabeller:
    """An ONNX file of a segmentor that labels images of any size, in memory that does not grow with them.

    It takes the logits of the file, whatever the file gives, and merges those of overlapping tiles. By the file's
    metadata it does what :class:`mmseg_gpt.apis.tiles.TaskLabeller` does with the model: images are resized as by the
    config's ``test_pipeline``, padded as by its preprocessor, and labelled at their own size.

    Args:
        path: A file of :func:`export_task`.
        tiling: The tiles, each an image of its own; by default the windows that the config of the model slides, or else
            images as a whole.

    Raises:
        ValueError: onnxruntime is missing, the file is not of a segmentor, or its pipeline changes images otherwise
            than by ``Resize``.
    """

    def __init__(self, path: str | Path, tiling: Tiling | None = None) -> None:
        self.session = onnx_file.session_of(Path(path), with_logits=True)
        self.about = self.session.get_modelmeta().custom_metadata_map
        shapes = {output.name: output.shape for output in self.session.get_outputs()}
        (images, ) = self.session.get_inputs()
        if 'test_cfg' not in self.about or len(shapes[onnx_file.LOGITS] or shapes.get('labels', ()) or ()) == 2:
            raise ValueError(f'{path} is not a segmentor that mmseg-gpt export wrote')
        self.rule, self.tiling = json.loads(self.about['test_cfg']), tiling
        self.resizes = resizes_of(json.loads(self.about.get('test_pipeline', '[]')), path)
        self.align_corners = json.loads(self.about.get('align_corners', 'false'))
        self.padding = json.loads(self.about.get('padding', '{}'))  # files of earlier versions do not say it
        self.mean, self.std = (np.array(json.loads(self.about[name]), np.float32) for name in ('mean', 'std'))
        self.device = torch.device('cpu')
        self.takes_bytes, self.last = images.type == 'tensor(uint8)', self.about.get('layout') == 'nhwc'
        self.classes = json.loads(self.about['classes'])
        self.channels = int(self.about['channels'])
        self.threshold = float(self.about['threshold']) if self.channels == 1 else None
        self.patch = int(self.about['patch_size'])
        sides = images.shape[1:3] if self.last else images.shape[2:]
        self.size = tuple(sides) if all(isinstance(side, int) for side in sides) else None

    def windows(self, size: tuple[int, int]) -> Windows:
        """Lays out the tiles of an image.

        Args:
            size: Height and width of the image.
        """
        if self.tiling:
            return self.tiling.windows(size)
        if self.slides:
            return Windows.sliding(padded_size(size, self.padding), tuple(self.rule['crop_size']),
                                   tuple(self.rule['stride']))
        return Windows.whole(size)

    @property
    def slides(self) -> bool:
        """Whether tiles are the windows that the model slides."""
        return self.rule.get('mode') == 'slide' and not (self.tiling or self.resizes)

    def logits(self, tiles: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[Tensor]:
        """Yields the logits (h, w, C) of each tile.

        Args:
            tiles: Pixels (h, w, C) of 0 to 255; of three, blue first.
            size: Height and width of the model's own windows, to which their tiles are padded. Other tiles have them.

        Raises:
            ValueError: the file takes images of another size only.
        """
        for tile in tiles:
            if not tile.size:  # it lies in the padding, where nothing of it is used
                yield torch.zeros(*size, self.channels)
            elif self.slides:
                yield self.answer(tile, size, size)
            else:
                yield torch.cat([logits.clone() for _, _, logits in self.parts(tile)])

    def parts(self, tile: np.ndarray) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields the logits (n, w, C) of a tile as an image of its own, with the rows and columns they are of.

        Args:
            tile: Pixels (h, w, C) of 0 to 255; of three, blue first.

        Raises:
            ValueError: the file takes images of another size only.
        """
        size = tile.shape[:2]
        if not (self.tiling or self.resizes):
            yield slice(0, size[0]), slice(0, size[1]), self.answer(tile, size, padded_size(size, self.padding))
            return
        image, plain = as_sample(tile), copy.copy(self)
        for step in self.resizes:
            image = step(image)
        plain.tiling, plain.resizes = None, []
        bands = (logits for _, _, logits in logits_in_tiles(plain, Pixels(image['img']), sys.maxsize))
        band = max(1, band_bytes(self.device) // (size[1] * self.channels * 4))
        for rows, logits in placed(resize(bands, image['img'].shape[:2], size, self.align_corners, band)):
            yield rows, slice(0, size[1]), logits

    def answer(self, pixels: np.ndarray, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
        """Returns the logits (h, w, C) of what goes through the file at once.

        Args:
            pixels: Pixels (h, w, C) of 0 to 255; of three, blue first.
            size: Height and width of the logits.
            padded: Height and width of what the file is given.

        Raises:
            ValueError: the file takes images of another size only.
        """
        if self.size and padded != self.size:
            raise ValueError(f'the file takes images of {self.size[0]} x {self.size[1]} pixels only, and the image '
                             f'has {padded[0]} x {padded[1]}')
        found = onnx_file.run(self.session, self.prepared(pixels, padded))[onnx_file.LOGITS]
        logits = torch.from_numpy(found)[0].permute(1, 2, 0)[:size[0], :size[1]]
        high, wide = logits.shape[:2]  # less than the size where the file has cut off what it padded
        return F.pad(logits, (0, 0, 0, size[1] - wide, 0, size[0] - high))

    def prepared(self, tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Makes what the file takes of pixels (h, w, C): a batch of one, padded at the bottom and right.

        The model pads what is normalised. A file that normalises pads to whole patches likewise; for more than that, or
        with other values than 0, the padding is the nearest whole numbers.

        Args:
            tile: The pixels.
            size: Height and width with the padding.
        """
        red_first = tile.shape[2] == 3 and (self.takes_bytes or self.about['channel_order'] == 'red first')
        tile = tile[..., ::-1] if red_first else tile
        value = self.padding.get('pad_val', 0)
        if self.takes_bytes:
            if not (self.size or value) and padded_size(tile.shape[:2], dict(size_divisor=self.patch)) == size:
                size = tile.shape[:2]  # the file itself pads it so
            fill = self.mean + value * self.std
            fill = fill[::-1] if self.about['channel_order'] == 'blue first' else fill  # as the model takes them
            tile = pad(tile, size, fill).round().clip(0, 255).astype(np.uint8)
            return np.ascontiguousarray(tile if self.last else tile.transpose(2, 0, 1))[None]
        normalised = pad((tile.astype(np.float32) - self.mean) / self.std, size, value)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))[None]

    def label(self, image: np.ndarray | Source) -> np.ndarray:
        """Returns the class numbers (H, W) of an image, uint8 where there are up to 256 classes.

        For a GeoTIFF, and labels that are written as they come, see :func:`mmseg_gpt.apis.label_files.write_labels`.

        Args:
            image: Pixels (H, W, C), of three blue first; or what reads them in parts.
        """
        source = Pixels(image) if isinstance(image, np.ndarray) else image
        labels = np.empty(source.size, np.uint8 if self.channels <= 256 else np.int64)
        for rows, columns, logits in logits_in_tiles(self, source):
            labels[rows, columns] = labels_of(scores_of(logits), self.threshold).numpy()
        return labels


def resizes_of(pipeline: list[dict], path: str | Path) -> list[Resize]:
    """Returns the transforms of a test pipeline that resize images.

    Args:
        pipeline: The ``test_pipeline`` that a file says about itself.
        path: The file, for messages.

    Raises:
        ValueError: the pipeline changes images in another way too.
    """
    changes = changes_of(pipeline)
    if others := [name for name, _ in changes if name != 'Resize']:
        raise ValueError(f'{path} is of a model whose test pipeline has {listed(others)}, which cannot be done here: '
                         'label images by mmseg-gpt predict')
    return [Resize(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
            for _, settings in changes]


def pad(pixels: np.ndarray, size: tuple[int, int], value: float | np.ndarray) -> np.ndarray:
    """Returns pixels (h, w, C) with ``value``, one or one for each channel, at the bottom and right up to ``size``."""
    if pixels.shape[:2] == size:
        return pixels
    found = np.empty((*size, pixels.shape[2]), np.float32)
    found[:] = value
    found[:pixels.shape[0], :pixels.shape[1]] = pixels
    return found

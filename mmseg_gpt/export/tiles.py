"""Large images labelled by an ONNX file, in the windows that its model slides or in tiles of any size."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..apis.tiles import Pixels, Source, Tiling, labels_of, logits_in_tiles
from ..segmentation.bands import Windows
from . import onnx_file


class FileLabeller:
    """An ONNX file of a segmentor that labels images of any size, in memory that does not grow with them.

    It takes the logits of the file, whatever the file gives, and merges those of overlapping tiles. Images are not
    resized: where the pipeline of the config does so (``test_pipeline`` in the file's metadata), do it before.

    Args:
        path: A file of :func:`export_task`.
        tiling: The tiles; by default the windows that the config of the model slides, or else images as a whole.

    Raises:
        ValueError: onnxruntime is missing, the file is not of a segmentor, or it takes images of another size only than
            the tiles have.
    """

    def __init__(self, path: str | Path, tiling: Tiling | None = None) -> None:
        self.session = onnx_file.session_of(Path(path), with_logits=True)
        self.about = self.session.get_modelmeta().custom_metadata_map
        shapes = {output.name: output.shape for output in self.session.get_outputs()}
        (images, ) = self.session.get_inputs()
        if 'test_cfg' not in self.about or len(shapes[onnx_file.LOGITS] or shapes.get('labels', ()) or ()) == 2:
            raise ValueError(f'{path} is not a segmentor that mmseg-gpt export wrote')
        self.rule, self.tiling = json.loads(self.about['test_cfg']), tiling
        self.takes_bytes, self.last = images.type == 'tensor(uint8)', self.about.get('layout') == 'nhwc'
        self.classes = json.loads(self.about['classes'])
        self.channels = int(self.about['channels'])
        self.threshold = float(self.about['threshold'])
        self.patch = int(self.about['patch_size'])
        sides = images.shape[1:3] if self.last else images.shape[2:]
        self.size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
        if self.size and tiling and (tiling.side, tiling.side) != self.size:
            raise ValueError(f'{path} takes images of {self.size[0]} x {self.size[1]} pixels only, so tiles of '
                             f'{tiling.side} do not fit')

    def windows(self, size: tuple[int, int]) -> Windows:
        """Lays out the tiles of an image.

        Args:
            size: Height and width of the image.
        """
        if self.tiling:
            return self.tiling.windows(size)
        if self.rule.get('mode') == 'slide':
            return Windows.sliding(size, tuple(self.rule['crop_size']), tuple(self.rule['stride']))
        return Windows.whole(size)

    def logits(self, tiles: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yields the logits (h, w, C) of each tile.

        Args:
            tiles: Pixels (h, w, C) of 0 to 255; of three, blue first.

        Raises:
            ValueError: the file takes images of another size only.
        """
        for tile in tiles:
            height, width = tile.shape[:2]
            if self.size and (height, width) != self.size:
                raise ValueError(f'the file takes images of {self.size[0]} x {self.size[1]} pixels only, and the image '
                                 f'has {height} x {width}')
            found = onnx_file.run(self.session, self.prepared(tile))[onnx_file.LOGITS]
            yield torch.from_numpy(found)[0].permute(1, 2, 0)[:height, :width]

    def parts(self, tile: np.ndarray) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields the logits (h, w, C) of an image of one tile, with its rows and columns.

        Args:
            tile: Pixels (h, w, C) of 0 to 255; of three, blue first.
        """
        for logits in self.logits([tile]):
            yield slice(0, len(logits)), slice(0, logits.shape[1]), logits

    def prepared(self, tile: np.ndarray) -> np.ndarray:
        """Makes what the file takes of pixels (h, w, C): a batch of one."""
        red_first = tile.shape[2] == 3 and (self.takes_bytes or self.about['channel_order'] == 'red first')
        tile = tile[..., ::-1] if red_first else tile
        if self.takes_bytes:
            tile = tile.round().clip(0, 255).astype(np.uint8) if tile.dtype != np.uint8 else tile
            return np.ascontiguousarray(tile if self.last else tile.transpose(2, 0, 1))[None]
        mean, std = (np.array(json.loads(self.about[name]), np.float32) for name in ('mean', 'std'))
        normalised = (tile.astype(np.float32) - mean) / std
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
            labels[rows, columns] = labels_of(logits, self.threshold).numpy()
        return labels

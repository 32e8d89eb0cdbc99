"""Labels of GeoTIFFs, written as GeoTIFFs a part at a time."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..datasets.predicted import as_picture
from ..models.labels import confidence_of, labels_of, scores_of
from ..segmentation.segmentor import probabilities
from .answers import LARGEST_PICTURE, LabelWriter, overlay
from .rasters import RasterSource, has_mask, missing, opened_source, write_part, writing
from .task import ServedTask
from .tiles import Labeller, Source, TaskLabeller, logits_in_tiles

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


class Written(NamedTuple):
    """What was found in an image.

    Attributes:
        counts: Number of pixels (C,) of each class, without empty pixels.
        overview: Class numbers (h, w) of an even choice of the pixels, of 4,096 pixels a side at most.
    """
    counts: np.ndarray
    overview: np.ndarray


def write_labels(labeller: Labeller, source: Source, dataset: 'DatasetReader', path: Path | None, *,
                 values: np.ndarray | None = None, colours: list | None = None, confidence: Path | None = None,
                 scores: Path | None = None, report: Callable[[float], None] | None = None) -> Written:
    """Labels an image in tiles, and writes the labels as a GeoTIFF with its size and georeference.

    Empty pixels, according to the file's nodata value, its alpha or its mask, get the highest value of the type
    (255, or 65,535), which is the nodata value of the written file.

    Args:
        labeller: The model, or exported file, that labels the tiles.
        source: The pixels.
        dataset: The file they are from.
        path: The file of labels, or None to write none.
        values: The value (C,) that stands for each class; by default its number from 0.
        colours: The colour (red, green, blue) of each class, or None.
        confidence: A GeoTIFF for the probability of the predicted class of each pixel, of which 255 is 1; or None.
        scores: A .npy file for the probabilities of all classes, float16 (C, H, W); or None.
        report: Called now and then with the share of the image that is labelled.
    """
    classes = max(2, labeller.channels)
    values = np.arange(classes) if values is None else values
    masked, (height, width) = has_mask(dataset), source.size
    dtype = np.uint8 if values.max() < 256 - masked else np.uint16
    nothing = np.iinfo(dtype).max if masked else None
    counts, overview, done = np.zeros(classes, int), Overview(source.size), 0
    with ExitStack() as files:
        labels_file = path and files.enter_context(writing(path, dataset, np.dtype(dtype).name, nothing, by_value(
            colours, values)))
        sure_file = confidence and files.enter_context(writing(confidence, dataset, 'uint8'))
        kept = scores and np.lib.format.open_memmap(scores, 'w+', np.float16, (labeller.channels, height, width))
        for rows, columns, logits in logits_in_tiles(labeller, source):
            labels = labels_of(scores_of(logits), labeller.threshold).long().cpu().numpy()
            overview.add(rows, columns, labels)
            empty = missing(dataset, rows, columns) if masked else np.zeros(labels.shape, bool)
            counts += np.bincount(labels[~empty], minlength=classes)
            if labels_file:
                write_part(labels_file, rows, columns, np.where(empty, nothing or 0, values[labels]).astype(dtype))
            if sure_file:
                sure = confidence_of(probabilities(logits).amax(2), labeller.threshold)
                write_part(sure_file, rows, columns, sure.numpy())
            if scores:
                kept[:, rows, columns] = probabilities(logits).permute(2, 0, 1).half().cpu().numpy()
            done += labels.size
            if report:
                report(done / (height * width))
    return Written(counts, overview.labels)


def write_raster(writer: LabelWriter | None, labeller: TaskLabeller, image: str | Path, name: str,
                 report: Callable[[float], None] | None = None, confidence: bool = False,
                 scores: bool = False) -> dict:
    """Labels a GeoTIFF in tiles, and writes what :class:`LabelWriter` writes, with label maps as GeoTIFFs.

    Args:
        writer: The writer, or None to write nothing.
        labeller: The task and its tiles.
        image: The GeoTIFF.
        name: The name of the files without suffix, which may have folders in it.
        report: Is told now and then which share of the image is labelled.
        confidence: Whether to write a map of confidence.
        scores: Whether to write probabilities too.

    Returns:
        dict: ``shares`` as :func:`.answers.as_numbers` has them, and the paths as :meth:`LabelWriter.write` has them.

    Raises:
        ValueError: rasterio is not installed, or another image was written under this name.
        SampleError: the file cannot be read.
    """
    task, paths = labeller.task, {}
    with opened_source(task, image) as (dataset, source):
        if writer:
            writer.claim(str(image), name)
            paths = dict(label_map=writer.file('labels', name, '.tif'))
            paths |= dict(confidence=writer.file('confidence', name, '.tif')) if confidence or scores else {}
            paths |= dict(probabilities=writer.probability_file(name)) if scores else {}
        found = write_labels(
            labeller, source, dataset, paths.get('label_map'), values=writer and writer.values,
            colours=writer and writer.colours(max(2, labeller.channels))['palette'],
            confidence=paths.get('confidence'), scores=paths.get('probabilities'), report=report)
        if writer:
            paths['overlay'] = writer.file('overlays', name)
            writer.write_legend(max(2, labeller.channels))
            Image.fromarray(overlay(picture(source, found.overview.shape), found.overview, writer.colours(
                max(2, labeller.channels))['palette'])).save(paths['overlay'])
    return dict(shares=shares_of(found.counts, task), **{key: str(path) for key, path in paths.items()})


def shares_of(counts: np.ndarray, task: ServedTask) -> dict[str, float]:
    """Returns the share of each class by name, the largest first, without those that are not there.

    Args:
        counts: Number of pixels (C,) of each class.
        task: The task, which knows the names.
    """
    order = [label for label in np.argsort(-counts, kind='stable').tolist() if counts[label]]
    return {task.class_name(label): round(float(counts[label] / counts.sum()), 6) for label in order}


class Overview:
    """An even choice of the labels of a large image, gathered as they come.

    Args:
        size: Height and width of the image.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        scale = min(1, LARGEST_PICTURE / max(size))
        small = [max(1, round(side * scale)) for side in size]
        self.places = [(np.arange(few) * 2 + 1) * side // (2 * few) for few, side in zip(small, size)]
        self.labels = np.zeros(small, np.uint16)

    def add(self, rows: slice, columns: slice, labels: np.ndarray) -> None:
        """Takes what it needs of the labels (h, w) of some rows and columns."""
        y, x = (slice(*np.searchsorted(places, (part.start, part.stop))) for places, part in zip(
            self.places, (rows, columns)))
        self.labels[y, x] = labels[np.ix_(self.places[0][y] - rows.start, self.places[1][x] - columns.start)]


def by_value(colours: list | None, values: np.ndarray) -> list | None:
    """Returns the colour of each value in a file, black where none has it; None without colours."""
    if colours is None:
        return None
    found = [(0, 0, 0)] * (int(values.max()) + 1)
    for value, colour in zip(values.tolist(), colours):
        found[value] = tuple(colour)
    return found


def picture(source: Source, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture (h, w, 3) of an image in a smaller size, uint8, red first."""
    if isinstance(source, RasterSource):
        return as_picture(source.picture(size))
    return cv2.resize(as_picture(source.read(slice(None), slice(None))), size[::-1], interpolation=cv2.INTER_AREA)

"""A photograph and the answers of segmentations for it, with the files that are written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..apis import AdapterPool, ServedTask
from ..apis.answers import as_numbers, label_map
from ..apis.rasters import is_georeferenced, opened_source
from ..apis.tiles import Tiling
from ..datasets.headers import read_header
from ..datasets.pairs import unreadable
from ..datasets.predicted import as_picture, write_label_map
from .pictures import shown_size, smaller

MOST_PROBABILITIES = 2**30  # bytes of a file with the probabilities of all classes of a photograph


@dataclass(frozen=True)
class Limits:
    """What is refused.

    Attributes:
        megabytes: The largest file.
        megapixels: The largest image.
    """
    megabytes: float = 32
    megapixels: float = 64


@dataclass
class Segmented:
    """The answer of a segmentation.

    Attributes:
        labels: Class numbers (h, w), as they are shown.
        label_map: The file that ``predict`` would write: PNG, or GeoTIFF of a GeoTIFF.
        shares: Share of the pixels of each class, by name, the largest first.
        probabilities: The .npy file (C, H, W) of probabilities, or None where it would be too large.
        names: Names of all classes.
        palette: Their colours.
    """
    labels: np.ndarray
    label_map: Path
    shares: dict[str, float]
    probabilities: Path | None
    names: list[str]
    palette: list[Sequence[int]]


@dataclass
class Photograph:
    """A photograph and what all tasks say about it.

    Attributes:
        file: The file.
        folder: Where all that belongs to it is written.
        size: Height and width in pixels.
        picture: The photograph (h, w, 3) as it is shown, red first.
        segmented: The answers of segmentations by task.
        classified: The probabilities of classes by name, for each classification.
    """
    file: Path
    folder: Path
    size: tuple[int, int]
    picture: np.ndarray
    segmented: dict[str, Segmented] = field(default_factory=dict)
    classified: dict[str, dict[str, float]] = field(default_factory=dict)

    def pixel(self, column: float, row: float) -> tuple[int, int]:
        """Returns the column and row in the photograph of a pixel of the picture that is shown."""
        (height, width), (high, wide) = self.size, self.picture.shape[:2]
        return (min(width - 1, int((column + 0.5) * width / wide)), min(height - 1, int((row + 0.5) * height / high)))


def check_file(file: Path, limits: Limits) -> None:
    """Refuses a file that is no image, or larger than is allowed.

    Raises:
        ValueError: so it is.
    """
    if file.stat().st_size > limits.megabytes * 2**20:
        raise ValueError(f'{file.name} has more than {limits.megabytes:g} MiB (--max-megabytes)')
    try:
        width, height = read_header(file).size
    except Exception as error:  # of decoders
        raise ValueError(unreadable(file, error).replace(str(file), file.name)) from error
    if width * height > limits.megapixels * 1e6:
        raise ValueError(f'{file.name} has {width:,} x {height:,} pixels, and {limits.megapixels:g} million '
                         'are allowed (--max-megapixels)')


def picture_of(task: ServedTask, file: Path) -> tuple[tuple[int, int], np.ndarray]:
    """Returns the size of an image as a task reads it, and a picture of it."""
    if is_raster(file):
        from ..apis.label_files import picture
        with opened_source(task, file) as (_, source):
            return source.size, picture(source, shown_size(source.size))
    pixels = as_picture(task.read(file)['img'])
    return pixels.shape[:2], smaller(pixels, shown_size(pixels.shape[:2]))


def segment(pool: AdapterPool, name: str, photograph: Photograph, tiling: Tiling | None = None) -> Segmented:
    """Lets one segmentation answer, as ``predict`` does; writes its label map and its probabilities.

    Args:
        pool: The tasks.
        name: The segmentation.
        photograph: The photograph.
        tiling: The tiles into which it is cut, or None.
    """
    from ..apis.label_files import shares_of, write_labels
    from ..apis.tiles import TaskLabeller, predict_in_tiles
    task, file, size = pool.tasks[name], photograph.file, photograph.picture.shape[:2]
    names, palette = names_and_colours(task)
    channels = getattr(task.model, 'out_channels', len(names))
    fits = 2 * channels * photograph.size[0] * photograph.size[1] <= MOST_PROBABILITIES
    scores = photograph.folder / f'{name}.npy' if fits else None
    if is_raster(file) and hasattr(task.model, 'patches'):
        path = photograph.folder / f'{name}_labels.tif'
        with opened_source(task, file) as (dataset, source):
            found = write_labels(TaskLabeller(task, tiling, pool.dtype), source, dataset, path,
                                 colours=palette, scores=scores)
        return Segmented(smaller(found.overview, size), path, shares_of(found.counts, task), scores, names,
                         palette)
    if tiling:
        meta = dict(small=True, **(dict(probabilities=str(scores)) if fits else {}))
        sample = predict_in_tiles(TaskLabeller(task, tiling, pool.dtype), file, meta)
    else:
        sample, = pool.predict([(name, file)], [scores], small=True)
    labels, path = label_map(sample), photograph.folder / f'{name}_labels.png'
    write_label_map(labels, path, len(task.classes) if task.classes else None)
    return Segmented(smaller(labels.astype(np.uint16), size), path, as_numbers(task, sample)['shares'], scores,
                     names, palette)


def is_raster(file: Path) -> bool:
    """Says whether a file is a GeoTIFF that can be read in parts."""
    return bool(find_spec('rasterio')) and is_georeferenced(file)


def names_and_colours(task: ServedTask) -> tuple[list[str], list[Sequence[int]]]:
    """Returns names and colours of the classes of a segmentation, with drawn colours if the checkpoint has none."""
    number = max(2, len(task.classes or ()), task.model.decode_head.out_channels)
    drawn = np.random.default_rng(0).integers(0, 256, (number, 3)).tolist()
    names = [task.class_name(i) if i < len(task.classes or ()) or not task.classes else str(i) for i in range(number)]
    return names, [*(task.palette or ()), *drawn][:number] if task.palette else drawn

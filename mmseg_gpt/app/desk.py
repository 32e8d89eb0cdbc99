"""The desk on which photographs are laid: all tasks answer for each, and questions about places are answered."""

import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from ..analysis.attention import Attended, attended
from ..apis import AdapterPool, ServedTask
from ..apis.answers import as_numbers, label_map, overlay
from ..apis.rasters import is_georeferenced, opened_source
from ..apis.tiles import Tiling
from ..datasets.headers import read_header
from ..datasets.pairs import unreadable
from ..datasets.predicted import as_picture, write_label_map
from .looking import BlockNumbers, Seen, block_numbers, region_around, seen_at
from .pictures import captioned, heat, shown_size, smaller

MOST_PROBABILITIES = 2**30  # bytes of a file with the probabilities of all classes of a photograph
FEW = 6  # classes that are named at a place


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


class Desk:
    """Answers for photographs, one at a time, by all tasks of a pool.

    Args:
        pool: The tasks.
        folder: Where everything is written.
        limits: What is refused.
        tiling: The tiles into which images of segmentations are cut, or None.
    """

    def __init__(self, pool: AdapterPool, folder: Path, limits: Limits | None = None,
                 tiling: Tiling | None = None) -> None:
        self.pool, self.folder, self.limits, self.tiling = pool, folder, limits or Limits(), tiling
        self.turn = threading.Lock()  # hooks on models, and their memory, are for one question at a time

    def lay(self, file: str | Path) -> Photograph:
        """Lets all tasks answer for a photograph.

        Args:
            file: The image file.

        Raises:
            ValueError: it is no image, or a larger one than is allowed.
            SampleError: it cannot be read, or is another kind of image than a task is for.
        """
        self.check(Path(file))
        folder = Path(mkdtemp(dir=self.folder, prefix='photograph-'))
        try:
            with self.turn:
                return self.answered(Path(file), folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def check(self, file: Path) -> None:
        """Refuses a file that is no image, or larger than is allowed.

        Raises:
            ValueError: so it is.
        """
        if file.stat().st_size > self.limits.megabytes * 2**20:
            raise ValueError(f'{file.name} has more than {self.limits.megabytes:g} MiB (--max-megabytes)')
        try:
            width, height = read_header(file).size
        except Exception as error:  # of decoders
            raise ValueError(unreadable(file, error).replace(str(file), file.name)) from error
        if width * height > self.limits.megapixels * 1e6:
            raise ValueError(f'{file.name} has {width:,} x {height:,} pixels, and {self.limits.megapixels:g} million '
                             'are allowed (--max-megapixels)')

    def answered(self, file: Path, folder: Path) -> Photograph:
        """Returns a photograph with the answers of all tasks."""
        photograph = None
        for name, task in self.pool.tasks.items():
            if photograph is None:
                size, picture = self.picture_of(task, file)
                photograph = Photograph(file, folder, size, picture)
            if hasattr(task.model, 'decode_head'):
                photograph.segmented[name] = self.segment(name, photograph)
            else:
                sample, = self.pool.predict([(name, file)])
                photograph.classified[name] = as_numbers(task, sample, True)['probabilities']
        return photograph

    def picture_of(self, task: ServedTask, file: Path) -> tuple[tuple[int, int], np.ndarray]:
        """Returns the size of an image as a task reads it, and a picture of it."""
        if is_raster(file):
            from ..apis.label_files import picture
            with opened_source(task, file) as (_, source):
                return source.size, picture(source, shown_size(source.size))
        pixels = as_picture(task.read(file)['img'])
        return pixels.shape[:2], smaller(pixels, shown_size(pixels.shape[:2]))

    def segment(self, name: str, photograph: Photograph) -> Segmented:
        """Lets one segmentation answer, as ``predict`` does; writes its label map and its probabilities."""
        from ..apis.label_files import shares_of, write_labels
        from ..apis.tiles import TaskLabeller, predict_in_tiles
        task, file, size = self.pool.tasks[name], photograph.file, photograph.picture.shape[:2]
        names, palette = names_and_colours(task)
        channels = getattr(task.model, 'out_channels', len(names))
        fits = 2 * channels * photograph.size[0] * photograph.size[1] <= MOST_PROBABILITIES
        scores = photograph.folder / f'{name}.npy' if fits else None
        if is_raster(file) and hasattr(task.model, 'patches'):
            path = photograph.folder / f'{name}_labels.tif'
            with opened_source(task, file) as (dataset, source):
                found = write_labels(TaskLabeller(task, self.tiling, self.pool.dtype), source, dataset, path,
                                     colours=palette, scores=scores)
            return Segmented(smaller(found.overview, size), path, shares_of(found.counts, task), scores, names,
                             palette)
        if self.tiling:
            meta = dict(small=True, **(dict(probabilities=str(scores)) if fits else {}))
            sample = predict_in_tiles(TaskLabeller(task, self.tiling, self.pool.dtype), file, meta)
        else:
            sample, = self.pool.predict([(name, file)], [scores], small=True)
        labels, path = label_map(sample), photograph.folder / f'{name}_labels.png'
        write_label_map(labels, path, len(task.classes) if task.classes else None)
        return Segmented(smaller(labels.astype(np.uint16), size), path, as_numbers(task, sample)['shares'], scores,
                         names, palette)

    def masks(self, photograph: Photograph, name: str, shown: Sequence[str], opacity: float = 0.5) -> np.ndarray:
        """Returns the picture (h, w, 3) with the colours of some classes of a task laid over it.

        Args:
            photograph: The photograph.
            name: The task.
            shown: Names of the classes.
            opacity: Share of the colour, 0 to 1.
        """
        found = photograph.segmented[name]
        return overlay(photograph.picture, found.labels, found.palette, {
            i for i, each in enumerate(found.names) if each in shown}, opacity)

    def write_overlay(self, photograph: Photograph, name: str, shown: Sequence[str], opacity: float = 0.5) -> Path:
        """Writes what :meth:`masks` returns as PNG, and returns the file."""
        path = photograph.folder / f'{name}_overlay.png'
        Image.fromarray(self.masks(photograph, name, shown, opacity)).save(path)
        return path

    def probabilities(self, photograph: Photograph, name: str, point: tuple[int, int]) -> dict[str, float]:
        """Returns the probabilities of the likeliest classes at a pixel, by name, or of the photograph if classified.

        Args:
            photograph: The photograph.
            name: The task.
            point: Column and row of the pixel in the photograph.
        """
        if name in photograph.classified:
            return likeliest(photograph.classified[name])
        found = photograph.segmented[name]
        if found.probabilities is None:
            return {}
        column = np.load(found.probabilities, mmap_mode='r')[:, point[1], point[0]].astype(float)
        column = np.array([1 - column[0], column[0]]) if len(column) == 1 else column
        return likeliest(dict(zip(found.names, column.tolist())))

    def attention(self, photograph: Photograph, name: str, point: tuple[int, int] | None,
                  query: str = 'patch') -> list[np.ndarray]:
        """Returns a picture for each block of what a token attends to there, with the numbers of the block below it.

        Args:
            photograph: The photograph.
            name: The task.
            point: Column and row of a pixel in the photograph: its patch asks if ``query`` is 'patch', and a model that
                slides windows is shown the window around it; by default the middle.
            query: 'patch', 'cls' or 'prompt:K'.

        Raises:
            ValueError: the model does not see the place, or has no such prompt.
        """
        task = self.pool.tasks[name]
        with self.turn:
            seen = self.seen(task, photograph, point)
            if query == 'patch' and seen.query is None:
                raise ValueError(f'{name} does not see this place, as its pipeline cuts off the border')
            asked = seen.query if query == 'patch' else query
            found = attended(task.vit, seen.inputs.to(self.pool.device), asked)
        if not found:
            raise ValueError(f'{name} has no prompts')
        patch, numbers = task.vit.patch_embed.patch_size, block_numbers(task.vit)
        return [captioned(heat(seen.picture, each.patches.numpy(), patch, seen.point if query == 'patch' else None),
                          caption(numbers[block], each)) for block, each in found.items()]

    def seen(self, task: ServedTask, photograph: Photograph, point: tuple[int, int] | None) -> Seen:
        """Returns what a task sees around a pixel of a photograph."""
        point = point or (photograph.size[1] // 2, photograph.size[0] // 2)
        rows, columns = region_around(task, photograph.size, point, self.tiling)
        if is_raster(photograph.file):
            with opened_source(task, photograph.file) as (_, source):
                pixels = source.read(rows, columns)
        else:
            pixels = task.read(photograph.file)['img'][rows, columns]
        return seen_at(task, pixels, (point[0] - columns.start, point[1] - rows.start))

    def clear(self, photograph: Photograph | None) -> None:
        """Removes all that was written for a photograph."""
        if photograph is not None:
            shutil.rmtree(photograph.folder, ignore_errors=True)
            with suppress(OSError):
                photograph.file.unlink()


def is_raster(file: Path) -> bool:
    """Says whether a file is a GeoTIFF that can be read in parts."""
    return bool(find_spec('rasterio')) and is_georeferenced(file)


def names_and_colours(task: ServedTask) -> tuple[list[str], list[Sequence[int]]]:
    """Returns names and colours of the classes of a segmentation, with drawn colours if the checkpoint has none."""
    number = max(2, len(task.classes or ()), task.model.decode_head.out_channels)
    drawn = np.random.default_rng(0).integers(0, 256, (number, 3)).tolist()
    names = [task.class_name(i) if i < len(task.classes or ()) or not task.classes else str(i) for i in range(number)]
    return names, [*(task.palette or ()), *drawn][:number] if task.palette else drawn


def likeliest(probabilities: dict[str, float]) -> dict[str, float]:
    """Returns the few highest probabilities, the highest first."""
    return dict(sorted(probabilities.items(), key=lambda pair: -pair[1])[:FEW])


def caption(numbers: BlockNumbers, found: Attended) -> list[str]:
    """Says the numbers of a block, in three lines."""
    gate, temperature, share = numbers.gate, numbers.temperature, found.prompt_share
    return [f'block {numbers.block}' + ('' if gate is None else f', gate {gate:.2g}'),
            '' if temperature is None else f'temperature {temperature:.2f}',
            f'{found.patches.max():.0f} x uniform' + (f', {share:.0%} prompts' if share else '')]

"""The desk on which photographs are laid: all tasks answer for each, and questions about places are answered."""

import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from ..analysis.attention import Attended, attended
from ..apis import AdapterPool, ServedTask
from ..apis.answers import as_numbers, overlay
from ..apis.rasters import opened_source
from ..apis.tiles import Tiling
from ..datasets import PixelError, SampleError
from .looking import BlockNumbers, Seen, block_numbers, region_around, seen_at
from .photograph import Limits, Photograph, check_file, is_raster, picture_of, segment
from .pictures import captioned, heat

PREFIX = 'photograph-'  # of the folders of photographs
FEW = 6  # classes that are named at a place


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
            ValueError: it is no image, or a larger one than is allowed, or another kind than a task is for.
        """
        file = Path(file)
        check_file(file, self.limits)
        folder = Path(mkdtemp(dir=self.folder, prefix=PREFIX))
        try:
            with self.turn:
                return self.answered(file, folder)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, (SampleError, PixelError)):
                raise ValueError(str(error).replace(str(file), file.name)) from error
            raise

    def answered(self, file: Path, folder: Path) -> Photograph:
        """Returns a photograph with the answers of all tasks."""
        photograph = None
        for name, task in self.pool.tasks.items():
            if photograph is None:
                size, picture = picture_of(task, file)
                photograph = Photograph(file, folder, size, picture)
            if task.segments:
                photograph.segmented[name] = segment(self.pool, name, photograph, self.tiling)
            else:
                sample, = self.pool.predict([(name, file)])
                photograph.classified[name] = as_numbers(task, sample, True)['probabilities']
        return photograph

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
            with self.pool.computing():
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

    def close(self) -> None:
        """Removes all that was written for any photograph."""
        for folder in self.folder.glob(f'{PREFIX}*'):
            shutil.rmtree(folder, ignore_errors=True)


def likeliest(probabilities: dict[str, float]) -> dict[str, float]:
    """Returns the few highest probabilities, the highest first."""
    return dict(sorted(probabilities.items(), key=lambda pair: -pair[1])[:FEW])


def caption(numbers: BlockNumbers, found: Attended) -> list[str]:
    """Says the numbers of a block, in three lines."""
    gate, temperature, share = numbers.gate, numbers.temperature, found.prompt_share
    return [f'block {numbers.block}' + ('' if gate is None else f', gate {gate:.2g}'),
            '' if temperature is None else f'temperature {temperature:.2f}',
            f'{found.patches.max():.0f} x uniform' + (f', {share:.0%} prompts' if share else '')]

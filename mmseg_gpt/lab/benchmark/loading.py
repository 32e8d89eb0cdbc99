"""The speed of a training pipeline alone: by number of workers, by transform, and compared with another loader."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
from torch.utils.data import DataLoader

from ...datasets.introspect import source_datasets
from ..drawn import draw_scene

# Width and height of drawn images. Most images of ADE20K have a short side of 512 and one of the usual shapes.
SIZES = ((683, 512), (683, 512), (683, 512), (512, 683), (768, 512), (512, 512), (640, 480), (384, 256))
REST = 'checks, seeds'

Progress = Callable[[Iterable], Iterable]


class Timed:
    """Transform that measures its time.

    Attributes:
        seconds: Seconds of all calls since it was set to 0.
    """

    def __init__(self, transform: Callable) -> None:
        self.transform, self.seconds = transform, 0.
        self.name = type(transform).__name__

    def __call__(self, results: dict) -> dict | None:
        start = perf_counter()
        results = self.transform(results)
        self.seconds += perf_counter() - start
        return results


class Cost(NamedTuple):
    """Time that a part of a pipeline takes.

    Attributes:
        name: The transform's class.
        milliseconds: Median time of an image.
        share: Share of the time of all images.
    """
    name: str
    milliseconds: float
    share: float


def time_transforms(loader: DataLoader, images: int, progress: Progress = iter) -> list[Cost]:
    """Loads images in this process and measures the time of each transform and of everything around them.

    The transforms in the loader's pipeline stay replaced by timed ones.

    Args:
        loader: Loader of datasets with a ``pipeline``, wrapped or not.
        images: Number of images, after one that is not counted.
        progress: Function for a progress bar: it gets the images as they come, and hands them on.
    """
    timed = []
    for source in source_datasets(loader.dataset):
        source.pipeline.transforms = [Timed(transform) for transform in source.pipeline.transforms]
        timed += source.pipeline.transforms
    rows = []
    for place in progress(list(islice(endless(loader.sampler), images + 1))):
        for transform in timed:
            transform.seconds = 0.
        start = perf_counter()
        loader.dataset[place]
        seconds = perf_counter() - start
        row = dict.fromkeys((transform.name for transform in timed), 0.)
        for transform in timed:
            row[transform.name] += transform.seconds
        rows.append({**row, REST: seconds - sum(row.values())})
    rows, total = rows[1:], sum(sum(row.values()) for row in rows[1:])
    return [Cost(name, 1000 * median(row[name] for row in rows), sum(row[name] for row in rows) / total)
            for name in rows[0]]


def endless(passes: Iterable) -> Iterator:
    """Yields the elements of an iterable again and again.

    Raises:
        ValueError: the iterable is empty.
    """
    while True:
        given = 0
        for given, each in enumerate(passes, 1):  # noqa: B007
            yield each
        if not given:
            raise ValueError('the data loader gives no batch: it has fewer images than a batch, and drop_last')


def measure_rate(loader: DataLoader, batches: int) -> float:
    """Measures the images per second of ``batches`` batches, after those that the workers prepare in advance."""
    given = endless(loader)
    for _ in range(loader.num_workers * (loader.prefetch_factor or 0) + 1):
        next(given)
    start = perf_counter()
    images = sum(len(batch['inputs']) for batch in islice(given, batches))
    return images / (perf_counter() - start)


def compare_rates(loaders: Mapping[str, Callable[[], DataLoader]], batches: int, rounds: int,
                  progress: Progress = iter) -> dict[str, list[float]]:
    """Measures the images per second of several loaders in turns, so that a disturbance affects all of them.

    Args:
        loaders: Functions that build the loaders. Each loader is built anew for each measurement, because MMEngine's
            endless sampler can be used only once. So each measurement has the same images, and no other loader has
            workers meanwhile.
        batches: Number of batches in a measurement.
        rounds: Number of measurements of each loader.
        progress: Function for a progress bar: it gets the rounds, and hands them on.
    """
    rates = {name: [] for name in loaders}
    for i in progress(range(rounds)):
        for name in sorted(loaders, reverse=bool(i % 2)):
            rates[name].append(measure_rate(loaders[name](), batches))
    return rates


def workers_needed(rates: Mapping[int, float], wanted: float) -> int:
    """Returns the number of workers for ``wanted`` images per second, if each is as fast as in the best measurement.

    Args:
        rates: Images per second by number of workers; 0 is this process, which counts as one worker.
        wanted: Images per second.
    """
    return math.ceil(wanted / max(rate / max(workers, 1) for workers, rate in rates.items()))


def ratio_range(ours: list[float], others: list[float]) -> dict[str, float]:
    """Returns the median, the lowest and the highest ratio of measurements made in turns."""
    ratios = [one / other for one, other in zip(ours, others)]
    return dict(median=median(ratios), low=min(ratios), high=max(ratios))


def draw_images(image_folder: Path, label_folder: Path, number: int, sizes: tuple[tuple[int, int], ...] = SIZES,
                progress: Progress = iter) -> None:
    """Draws pairs of JPEG and PNG at sizes as in ADE20K, for machines without a dataset.

    Args:
        image_folder: Folder of the images; it is made.
        label_folder: Folder of the labels, 0 ("other") to 9; it is made.
        number: Number of pairs; pair i is drawn the same each time.
        sizes: Widths and heights, taken in turns.
        progress: Function for a progress bar: it gets the numbers of the pairs, and hands them on.
    """
    for folder in (image_folder, label_folder):
        folder.mkdir(parents=True)
    for i in progress(range(number)):
        width, height = sizes[i % len(sizes)]
        image, labels = draw_scene(np.random.default_rng(i), max(width, height))
        cv2.imwrite(str(image_folder / f'{i:05d}.jpg'), image[:height, :width, ::-1])
        cv2.imwrite(str(label_folder / f'{i:05d}.png'), labels[:height, :width])

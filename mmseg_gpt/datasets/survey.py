"""A survey of every image and label map of a dataset: their problems, and how classes and sizes are distributed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..files import file_sha256
from ..processes import in_processes
from .folders import check_folders, overlooked_images, present_pairs
from .introspect import class_numbers, highest_class, label_rule, reader_of, rotates, sample_files, source_datasets
from .judging import Reader
from .left_out import left_out, not_taken
from .pairs import Inspection, LabelRule, inspect_pair

Progress = Callable[[Iterable, int], Iterable]


class PairToInspect(NamedTuple):
    """An image and label map to inspect; the fields are the arguments of :func:`~mmseg_gpt.datasets.inspect_pair`."""
    image: str
    label: str | None
    rule: LabelRule
    rotates: bool
    reader: Reader


@dataclass
class Survey:
    """The findings in one dataset.

    Attributes:
        classes: Names of its classes.
        pairs: Number of images, with or without labels.
        problems: One sentence for each problem.
        notes: One sentence for each kind of image that the dataset rightly leaves out.
        sizes: Width and height in pixels of each image that can be read.
        pixels: Number of pixels of each class; 0 in classification.
        images: Number of images in which each class occurs.
        ignored: Number of ignored pixels.
        images_by_hash: Image files by the SHA-256 of their content.
    """
    classes: Sequence[str]
    pairs: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    pixels: np.ndarray = None
    images: np.ndarray = None
    ignored: int = 0
    images_by_hash: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pixels, self.images = (np.zeros(len(self.classes), int) for _ in range(2))

    @property
    def counts(self) -> np.ndarray:
        """Counts of the classes from which their shares are computed: pixels if there are label maps, else images."""
        return self.pixels if self.pixels.any() else self.images

    @property
    def ignored_share(self) -> float | None:
        """Share of ignored pixels, or None without label maps."""
        total = self.ignored + int(self.pixels.sum())
        return self.ignored / total if total else None

    @property
    def absent(self) -> list[str]:
        """Classes that never occur; empty without labels."""
        return [name for name, count in zip(self.classes, self.images) if not count] if self.images.any() else []

    def add(self, pair: PairToInspect, inspection: Inspection, digest: str | None) -> None:
        """Adds the findings in one pair, and the SHA-256 of its image if it can be read."""
        self.pairs += 1
        self.problems += inspection.problems
        if inspection.size:
            self.sizes.append(inspection.size)
        if digest:
            self.images_by_hash.setdefault(digest, []).append(pair.image)
        if inspection.pixels is not None and self.classes:
            by_class = np.bincount(pair.rule.class_of_value(), inspection.pixels, minlength=256).astype(int)
            self.ignored += int(by_class[pair.rule.ignore_index])
            by_class = np.where(np.arange(256) == pair.rule.ignore_index, 0, by_class)[:len(self.classes)]
            self.pixels += by_class
            self.images += by_class > 0

    def count(self, source: object) -> None:
        """Counts the images of each class of a classification dataset, and reports numbers that are not a class."""
        for i in range(len(source)):
            for number in class_numbers(source, i):
                if 0 <= number < len(self.classes):
                    self.images[number] += 1
                else:
                    self.problems.append(f'{sample_files(source.get_data_info(i))[0]}: its class is {number}; the '
                                         f'dataset has {len(self.classes)} classes')


def survey(dataset: object, workers: int, progress: Progress = lambda done, total: done) -> Survey:
    """Decodes every image and label map of ``dataset``, and checks each as :func:`inspect_pair` does.

    Args:
        dataset: A dataset of mmsegmentation or mmpretrain, wrapped or not.
        workers: Number of processes.
        progress: Function for a progress bar: it gets the results as they come and their number, and passes them on.

    Returns:
        Survey: The problems and counts of the whole dataset.
    """
    found = Survey(class_names(dataset))
    pairs = []
    for source in source_datasets(dataset):
        found.problems += check_folders(source) + overlooked_images(source) + left_out(source)
        found.notes += not_taken(source)
        found.count(source)
        pairs += pairs_to_inspect(source)
    with in_processes(inspect_and_hash, pairs, workers) as results:
        for result, pair in zip(progress(results, len(pairs)), pairs):
            found.add(pair, *result)
    return found


def class_names(dataset: object) -> Sequence[str]:
    """Returns the names of a dataset's classes, or their numbers if it labels images and has no names."""
    if names := getattr(dataset, 'metainfo', {}).get('classes'):
        return names
    return [str(i) for i in range(1 + max(highest_class(source) for source in source_datasets(dataset)))]


def pairs_to_inspect(source: object) -> list[PairToInspect]:
    """Lists the pairs of an unwrapped dataset, each once; samples that are not files are left out."""
    rule, turned, reader = label_rule(source), rotates(source), reader_of(source)
    return [PairToInspect(*pair, rule, turned, reader) for pair in present_pairs(source, range(len(source)))]


def inspect_and_hash(pair: PairToInspect) -> tuple[Inspection, str | None]:
    """Inspects a pair and hashes its image; runs in a worker."""
    inspection = inspect_pair(*pair)
    return inspection, file_sha256(pair.image) if inspection.size else None


def common_images(first: Survey, second: Survey) -> list[tuple[str, str]]:
    """Returns pairs of images that are the same in two datasets, byte for byte."""
    same = first.images_by_hash.keys() & second.images_by_hash.keys()
    return sorted((first.images_by_hash[d][0], second.images_by_hash[d][0]) for d in same)

"""Images of which there is a copy in another split, by their content."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...files import file_sha256
from .types import FoundError

Sample = TypeVar('Sample', bound=tuple)  # its first entry is the path of the image
SAMPLED = 4096  # bytes from the middle of a file, which tell most files of the same size apart
SHOWN = 3


class Copy(NamedTuple):
    """An image in one split that is, byte for byte, one of another split."""
    split: str
    image: Path
    other_split: str
    other: Path


def without_copies(splits: Mapping[str, Sequence[Sample]]) -> tuple[dict[str, list[Sample]], list[str]]:
    """Leaves the training images out that are in another split too, byte for byte.

    Args:
        splits: The samples of each split; the first entry of each is the path of its image.

    Returns:
        The splits, and a sentence for each two of them that have images in common.

    Raises:
        FoundError: no training image would be left.
    """
    copies = find_copies({split: [sample[0] for sample in samples] for split, samples in splits.items()})
    notes, left_out = [], {copy.image for copy in copies if copy.split == 'train'}
    for first, second in sorted({(copy.split, copy.other_split) for copy in copies}):
        same = [copy for copy in copies if (copy.split, copy.other_split) == (first, second)]
        names = '; '.join(f'{copy.image} is {copy.other}' for copy in same[:SHOWN])
        names += f'; and {len(same) - SHOWN:,} more' if len(same) > SHOWN else ''
        then = ', and are left out of training' if first == 'train' else ''
        notes.append(f'images of the split {first} that are in {second} too, byte for byte{then} '
                     f'({len({copy.image for copy in same}):,}): {names}')
    kept = {split: [sample for sample in samples if split != 'train' or sample[0] not in left_out]
            for split, samples in splits.items()}
    if splits.get('train') and not kept['train']:
        raise FoundError(f'all training images are in another split too, so nothing is left to train on: {notes[-1]}')
    return kept, notes


def find_copies(splits: Mapping[str, Sequence[Path]]) -> list[Copy]:
    """Finds images of one split that are in another; the split that comes first in the mapping is named first."""
    order, copies = list(splits), []
    for files in same_files([(split, image) for split, images in splits.items() for image in images]):
        first_of = {}
        for split, image in files:
            first_of.setdefault(split, image)
        for split, image in files:
            copies += [Copy(split, image, other, first_of[other]) for other in order[order.index(split) + 1:]
                       if other in first_of]
    return copies


def first_copies(images: Sequence[Path]) -> dict[Path, Path]:
    """Returns, for each image of which there are copies, byte for byte, the first of them."""
    return {image: files[0][1] for files in same_files([(str(image), image) for image in images]) for _, image in files}


def same_files(files: Sequence[tuple[str, Path]]) -> list[list[tuple[str, Path]]]:
    """Groups files of several splits by their content, and keeps the groups that are in several splits."""
    same = [[*files]]
    for told_apart_by in (os.path.getsize, middle_of, file_sha256):
        same = [group for each in same for group in groups(each, told_apart_by)]
    return same


def groups(files: Sequence[tuple[str, Path]], key: object) -> list[list[tuple[str, Path]]]:
    """Groups files by what a function of their path returns, and keeps the groups that are in several splits."""
    if len({split for split, _ in files}) < 2:
        return []
    by_key = defaultdict(list)
    for split, image in files:
        by_key[key(image)].append((split, image))
    return [group for group in by_key.values() if len({split for split, _ in group}) > 1]


def middle_of(path: Path) -> bytes:
    """Reads some bytes from the middle of a file."""
    with open(path, 'rb') as file:
        file.seek(max(os.path.getsize(path) // 2 - SAMPLED // 2, 0))
        return file.read(SAMPLED)

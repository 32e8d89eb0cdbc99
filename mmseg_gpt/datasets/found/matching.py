"""Matches masks to images by their names."""

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...wording import listed
from .names import core_of, rank_of
from .tree import ARRAYS, PICTURES, SHOWN, File
from .types import FoundError

# Where the mask of an image may lie: in a folder of the same split and scene, of the same scene, in a folder beside
# that of the image, or anywhere.
LEVELS = ('split and scene', 'scene', 'beside', 'anywhere')


@dataclass
class Matches:
    """Which masks belong to which images.

    Attributes:
        masks: The masks of each image that has any.
        alone: The masks that belong to no image.
    """
    masks: dict[File, list[File]] = field(default_factory=lambda: defaultdict(list))
    alone: list[File] = field(default_factory=list)


def match(images: Sequence[File], masks: Sequence[File]) -> Matches:
    """Finds the image of each mask by their names.

    The names are the same but for the suffix; or they are when the words for images and masks are taken off, and those
    for splits too; or one begins or ends with the other. If that finds nothing, and all images, and all masks, differ
    in their numbers alone, these decide.

    Raises:
        FoundError: a mask fits several images.
    """
    best = Matches(alone=list(masks))
    for level in LEVELS:
        index, found = Index(images, level), Matches()
        for mask in masks:
            image = index.image_of(mask)
            found.alone.append(mask) if image is None else found.masks[image].append(mask)
        # A looser level may match strangers of the same number, so it must be much better.
        if len(masks) - len(found.alone) > 2 * (len(masks) - len(best.alone)):
            best = found
        if not best.alone:
            break
    return best if best.masks else by_numbers(images, masks)


def by_numbers(images: Sequence[File], masks: Sequence[File]) -> Matches:
    """Matches 'masks/p001.png' with 'images/1.jpg', if there is such a mask of each image and such an image of each."""
    numbered = []
    for files in (images, masks):
        names = [re.fullmatch(r'(\D*)0*(\d+)(\D*)', file.stem) for file in files]
        of_number = {name[2]: file for name, file in zip(names, files) if name}
        alike = all(names) and len({name.group(1, 3) for name in names}) == 1
        numbered.append(of_number if alike and len(of_number) == len(files) else {})
    image_of, mask_of = numbered
    if not image_of or image_of.keys() != mask_of.keys():
        return Matches(alone=list(masks))
    return Matches({image: [mask_of[number]] for number, image in image_of.items()})


class Index:
    """Images by their names, from the exact to the vague.

    Args:
        images: The images.
        level: One of :data:`LEVELS`.
    """

    def __init__(self, images: Iterable[File], level: str = LEVELS[0]) -> None:
        self.level = level
        self._images: dict[Hashable, list[File]] = defaultdict(list)
        for image in images:
            for way, names in names_of(image):
                for name in dict.fromkeys(names):
                    self._images[way, self._place(image), name].append(image)

    def image_of(self, mask: File) -> File | None:
        """Returns the image of a mask, or None.

        Raises:
            FoundError: it fits several.
        """
        place = self._place(mask)
        for way, names in names_of_mask(mask):
            for name in names:
                images = [image for image in self._images.get((way, place, name), ()) if image != mask
                          and (image.folder.split or mask.folder.split) == (mask.folder.split or image.folder.split)]
                if len(images) == 1:
                    return images[0]
                if images and way != 'beginning' and self.level != 'anywhere':
                    raise several_images(mask, images)
        return None

    def _place(self, file: File) -> Hashable:
        folder = file.folder
        places = (folder.split, folder.rest), folder.rest, os.path.dirname(folder.path), None
        return places[LEVELS.index(self.level)]


def names_of(image: File) -> Iterator[tuple[str, list[str]]]:
    """Yields the names under which an image is found, and the way in which they are compared."""
    yield 'same', [image.stem.lower()]
    yield 'core', [core_of(image.stem)[0]]
    yield 'without split', [core_of(image.stem, True)[0]]
    yield 'beginning', beginnings(image.stem.lower())


def names_of_mask(mask: File) -> Iterator[tuple[str, list[str]]]:
    """Yields the ways and names by which the image of a mask is looked for, from the exact to the vague."""
    stem, core = mask.stem.lower(), core_of(mask.stem)[0]
    base, _, suffix = stem.rpartition('.')
    yield 'same', [stem, base] if f'.{suffix}' in PICTURES else [stem]  # 'a.jpg.png' is of 'a.jpg'
    yield 'core', [core]
    yield 'without split', [core_of(mask.stem, True)[0]]
    yield 'same', beginnings(stem) + endings(stem)
    yield 'beginning', [name for name in dict.fromkeys((stem, core)) if name]


def beginnings(name: str) -> list[str]:
    """Returns the beginnings of a name that end where a word does, the longest first."""
    return [name[:place.start()] for place in re.finditer(r'[_. -]+(?=.)', name) if place.start()][::-1]


def endings(name: str) -> list[str]:
    """Returns the ends of a name that begin where a word does, the longest first."""
    return [name[place.end():] for place in re.finditer(r'[_. -]+(?=.)', name)]


def several_images(mask: File, images: Sequence[File]) -> FoundError:
    """Makes the error of a mask that fits several images."""
    folders = sorted({image.folder.shown for image in images})
    remedy = ('rename or remove all but one' if len(folders) == 1 else
              f'say which folder has the images, as --images {shlex.quote(folders[0])}')
    return FoundError(f'the mask {mask.shown} fits several images, {listed([image.shown for image in images], SHOWN)}: '
                      f'{remedy}')


def choose_masks(masks_of: dict[File, list[File]]) -> tuple[dict[File, File], list[str]]:
    """Chooses one mask for each image: the one that ranks first by the words of its name.

    Returns:
        The mask of each image, and a sentence if there was a choice.

    Raises:
        FoundError: several masks of an image rank first.
    """
    chosen, doubtful = {}, []
    for image, masks in masks_of.items():
        best, *others = sorted(masks, key=rank)
        if others and rank(best) == rank(others[0]):
            raise several_masks(image, [best, *others])
        chosen[image] = best
        doubtful += [(best, others)] if others else []
    if not doubtful:
        return chosen, []
    best, others = doubtful[0]
    pattern = pattern_of(others[0], [best, *others])
    return chosen, [f'images that several masks fit ({len(doubtful):,}): taken is {best.shown} and its like, not '
                    f'{listed([mask.shown for mask in others], SHOWN)}; to take others, name them with --masks'
                    + (f" '{pattern}'" if pattern else '')]


def rank(mask: File) -> tuple[int, bool]:
    """Ranks a mask by the words of its path, and pictures before arrays."""
    return rank_of(f'{mask.folder.shown}/{mask.stem}'), mask.suffix in ARRAYS


def several_masks(image: File, masks: Sequence[File]) -> FoundError:
    """Makes the error of an image with several masks."""
    patterns = ' or '.join(f"--masks '{pattern}'" for pattern in dict.fromkeys(
        pattern_of(mask, masks) for mask in masks[:SHOWN]) if pattern) or 'as --masks PATTERN'
    return FoundError(f'several masks fit the image {image.shown}: {listed([mask.shown for mask in masks], SHOWN)}. '
                      f'Say which to take, {patterns}; or, if each shows a part of the labels, make one mask of them')


def pattern_of(mask: File, masks: Sequence[File]) -> str:
    """Returns a pattern that fits a mask and its like, but not the other masks of its image; empty without one."""
    if sum(other.folder == mask.folder for other in masks) == 1:
        return f'*{mask.folder.shown}/*'
    if sum(other.suffix == mask.suffix for other in masks) == 1:
        return f'*{mask.suffix}'
    stems = [other.stem for other in masks]
    same = next((i for i, signs in enumerate(zip(*stems)) if len(set(signs)) > 1), min(map(len, stems)))
    start = max(mask.stem.rfind(sign, 0, same) for sign in '_. -')
    return f'*{mask.name[start:]}' if start >= 0 and same < len(mask.stem) else ''

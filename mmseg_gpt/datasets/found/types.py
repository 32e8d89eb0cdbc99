"""Findings in a folder of images: the pairs or labelled images of each split, and notes for the user."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class FoundError(ValueError):
    """A folder cannot be understood. The message names the folder or file, and the remedy."""


class Pair(NamedTuple):
    """An image and its mask.

    Attributes:
        image: The path of the image.
        mask: The path of its mask; None in a 'test' split without masks.
    """
    image: Path
    mask: Path | None


@dataclass
class Found:
    """The images and masks of a folder.

    Attributes:
        root: The folder that holds all of them, as an absolute path.
        layout: Their layout, as a sentence: 'images and masks in the folders images/ and masks/'.
        splits: The pairs of 'train', 'val' and, if there is one, 'test', in the order of their names.
        notes: Sentences for the user: on a split that was made, or files that were left out.
    """
    root: Path
    layout: str
    splits: dict[str, list[Pair]]
    notes: list[str] = field(default_factory=list)


@dataclass
class FoundClasses:
    """The images of a folder and the class of each.

    Attributes:
        root: The folder that holds all of them, as an absolute path.
        layout: Their layout, as a sentence.
        classes: The names of the classes, in the order of their numbers.
        splits: The images of 'train', 'val' and, if there is one, 'test', each with its class number.
        notes: Sentences for the user.
    """
    root: Path
    layout: str
    classes: tuple[str, ...]
    splits: dict[str, list[tuple[Path, int]]]
    notes: list[str] = field(default_factory=list)

"""What is said of a folder of images: the pairs or labelled images of each split, and what the user must hear."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class FoundError(ValueError):
    """A folder cannot be understood. The message names the folder or file, and the remedy."""


class Pair(NamedTuple):
    """An image and its mask.

    Attributes:
        image: The path of the image.
        mask: That of its mask; None in a split 'test' without masks.
    """
    image: Path
    mask: Path | None


@dataclass
class Found:
    """The images and masks of a folder.

    Attributes:
        root: The folder that holds all of them, as an absolute path.
        layout: How they lie there, as a sentence: 'images and masks in the folders images/ and masks/'.
        splits: The pairs of 'train', of 'val' and, where there is one, of 'test', in the order of their names.
        notes: What the user must hear, a sentence each: a split that was made, files that were left out.
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
        layout: How they lie there, as a sentence.
        classes: The names of the classes, in the order of their numbers.
        splits: The images of 'train', of 'val' and, where there is one, of 'test', each with its class number.
        notes: What the user must hear, a sentence each.
    """
    root: Path
    layout: str
    classes: tuple[str, ...]
    splits: dict[str, list[tuple[Path, int]]]
    notes: list[str] = field(default_factory=list)

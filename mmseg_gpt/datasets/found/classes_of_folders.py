"""Finds the images of a folder and the class of each, in the layouts that people use."""

from pathlib import Path

from .types import FoundClasses


def find_labelled_images(folder: str | Path, *, val: float = 0.2, seed: int = 0) -> FoundClasses:
    """Finds images in class folders, or in a list that gives their class, and a split for validation or makes one.

    Args:
        folder: The folder with the class folders, with the splits that have class folders, or with the list; or the
            list itself.
        val: The share of each class's training images that is kept for validation, where there is no such split.
        seed: Another seed keeps other images.

    Raises:
        FoundError: the layout is unknown, or a split has a class that the training images lack.
    """
    raise NotImplementedError

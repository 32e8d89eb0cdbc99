"""Finds the images and masks of a folder, in the layouts that people use."""

from pathlib import Path
from typing import Literal

from .types import Found


def find_pairs(folder: str | Path | None = None, *, images: str | Path | None = None, masks: str | Path | None = None,
               val: float = 0.2, seed: int = 0) -> Found:
    """Finds images and their masks, and a split for validation or makes one.

    Args:
        folder: The folder that holds everything.
        images: The folder of the images, in place of ``folder`` or inside it.
        masks: The folder of the masks; or a pattern of their names or paths below ``folder``, such as
            '*_labelTrainIds.png', where several masks fit one image.
        val: The share of the training images that are kept for validation, where there is no such split.
        seed: Another seed keeps other images.

    Raises:
        FoundError: the layout is unknown, or there is more than one way to understand it.
    """
    raise NotImplementedError


def task_of_folder(folder: str | Path) -> tuple[Literal['segmentation', 'classification'], str]:
    """Tells whether a folder has images with masks or images with a class each, and says why in a sentence.

    Raises:
        FoundError: it may be either, or neither; ``--task`` helps.
    """
    raise NotImplementedError


def is_segmentation(folder: str | Path) -> bool:
    """Says whether a folder has images with masks, not with a class each; raises as :func:`task_of_folder` does."""
    return task_of_folder(folder)[0] == 'segmentation'

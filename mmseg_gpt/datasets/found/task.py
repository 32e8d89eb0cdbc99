"""Tells whether a folder is for segmentation or for classification."""

import os
from pathlib import Path
from typing import Literal

from .candidates import look, twin_folders
from .classes_of_folders import class_folders, labelled_list
from .matching import Matches
from .polygons import polygons
from .tree import read_tree
from .types import FoundError


def task_of_folder(folder: str | Path) -> tuple[Literal['segmentation', 'classification'], str]:
    """Tells whether a folder has images with masks or images with a class each, and says why in a sentence.

    Raises:
        FoundError: it may be either, or neither; ``--task`` helps.
    """
    path = Path(os.path.abspath(folder))
    if path.is_file():
        return 'classification', f'{path.name} is a list of images and their classes'
    tree = read_tree(path)
    try:
        found, matches = look(tree)
    except FoundError as error:  # there are masks, but which ones is not clear
        found, matches, doubt = None, Matches(), str(error)
    else:
        doubt = ''
    ...


def is_segmentation(folder: str | Path) -> bool:
    """Says whether a folder has images with masks, not with a class each; raises as :func:`task_of_folder` does."""
    return task_of_folder(folder)[0] == 'segmentation'

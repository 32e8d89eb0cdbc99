"""Tells whether a folder is for segmentation or for classification."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ...wording import listed
from .candidates import PHOTOS, look, twin_folders
from .classes_of_folders import labelled_images
from .names import meanings_of
from .polygons import polygons
from .tree import ARRAYS, PICTURES, File, Tree, read_tree
from .types import FoundError

Task = Literal['segmentation', 'classification']
SEGMENTATION, CLASSIFICATION = 'segmentation', 'classification'
FEW = 0.1  # of the images: fewer masks than this do not make a folder of classes one of segmentation
DOUBTFUL = frozenset(('map', 'maps', 'target', 'targets', 'manual'))  # masks or, as well, a class


def task_of_folder(folder: str | Path) -> tuple[Task, str]:
    """Tells whether a folder has images with masks or images with a class each, and says why in a sentence.

    Args:
        folder: The folder, or a list of images with their classes.

    Raises:
        FoundError: it may be either, or neither; the message suggests ``--task``.
    """
    path = Path(os.path.abspath(folder))
    if path.suffix.lower() in PICTURES and path.is_file():
        raise FoundError(f'{path} is an image: give the folder that has the images and their masks or classes')
    if path.is_file():
        return CLASSIFICATION, f'{path.name} is taken for a list of images and their classes'
    tree = read_tree(path)
    images = [file for file in tree.pictures if file.suffix not in ARRAYS]
    classes = class_names(tree)
    by_masks = task_by_masks(tree, images, classes)
    if by_masks:
        return by_masks
    if len(classes) > 1:
        return CLASSIFICATION, f'there are images of {len(classes)} classes ({listed(classes)}), without masks'
    if labels := polygons(tree):
        return SEGMENTATION, f'{len(labels):,} files such as {labels[0].shown} may hold polygons'
    if len(classes) == 1:
        raise FoundError(f'{path} has only one class folder, {classes[0]}, and no masks: classification needs two or '
                         'more')
    raise FoundError(f'{path} has neither images with masks nor images in folders of classes; it has: '
                     f'{tree.suffixes()}. For segmentation, put the masks into a folder masks beside it, named as '
                     'their images are; for classification, put the images of each class into a folder of its name')


def class_names(tree: Tree) -> list[str]:
    """Returns the names of classes that lists or folders give, but not those that are words for images or masks."""
    try:
        found = labelled_images(tree)
    except FoundError:
        return []
    names = {name for samples in found.splits.values() for _, name in samples}
    meanings = meanings_of(names)
    return sorted(name for name in names if found.listed or not meanings[name].role)


def task_by_masks(tree: Tree, images: Sequence[File], classes: Sequence[str]) -> tuple[Task, str] | None:
    """Tells the task of a folder if it has masks, or files that look so.

    Raises:
        FoundError: it may be either.
    """
    either = (f'{tree.root} may be for segmentation or for classification: {{}}. Say which, as --task segmentation or '
              '--task classification')
    try:
        found, matches = look(tree)
    except FoundError as error:
        twins = twin_folders(tree.pictures)
        if not twins:
            return SEGMENTATION, f'there are images and masks ({error})'
        if all(file.suffix in PHOTOS for _, files in twins for file in files):
            return None
        raise FoundError(either.format(f'the folders {" and ".join(name for name, _ in twins)} have files of the same '
                                       'names, which may be images and masks, or two classes')) from error
    if not matches.masks and found.masks and found.told_by == 'folders' and not doubtful(found.masks[0]):
        return SEGMENTATION, f'the folder {found.masks[0].folder.shown} is one of masks'
    if not matches.masks or (len(classes) > 1 and len(matches.masks) < FEW * len(images)):
        return None
    image, (mask, *_) = next(iter(matches.masks.items()))
    example = f'{mask.shown} is the mask of {image.shown}'
    twins = found.told_by == 'twin folders' and not image.folder.role
    if twins or (found.told_by == 'folders' and classes and doubtful(mask)):
        raise FoundError(either.format(f'perhaps {example}, or the folders are classes'))
    number = len(matches.masks)
    return SEGMENTATION, f'{number:,} {"image has a mask" if number == 1 else "images have masks"}: {example}'


def doubtful(mask: File) -> bool:
    """Says whether the name of a mask's folder may be that of a class."""
    return mask.folder.shown.rpartition('/')[2].lower() in DOUBTFUL

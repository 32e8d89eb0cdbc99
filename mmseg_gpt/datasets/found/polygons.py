"""What to say of a folder without masks."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ...resources import PROGRAM
from ...wording import listed
from .tree import POLYGONS, SHOWN, File, Tree
from .types import FoundError


def no_masks(tree: Tree, images: Sequence[File], masks: Sequence[File]) -> FoundError:
    """Makes the error of a folder in which no image has a mask; it names the remedy."""
    labels = polygons(tree)
    if labels:
        return FoundError(f'{tree.root}: the labels are not masks but {listed(suffixes(labels))} files '
                          f'({len(labels):,}), such as {labels[0].shown}. Make masks of them first: {PROGRAM} labels '
                          f'{shlex.join([str(tree.root), f"{tree.root.name}_masks"])}')
    if images and masks:
        return FoundError(f'{tree.root}: none of {len(masks):,} masks belongs to one of {len(images):,} images by its '
                          f'name. Images: {shown(images)}. Masks: {shown(masks)}. Name each mask as its image, perhaps '
                          'with an addition: a.jpg and a_mask.png')
    if images and all(image.folder.role == 'mask' for image in images):
        return FoundError(f'{tree.root} has masks, such as {shown(images)}, but no images: add them, in a folder '
                          'images, or say where they are with --images')
    if images:
        return FoundError(f'{tree.root} has {len(images):,} images, such as {shown(images)}, but no masks that can be '
                          'told by the names of folders or files. Put the masks into a folder masks, named as their '
                          'images are, or say where they are with --masks')
    return FoundError(f'{tree.root} has no images; it has: {tree.suffixes()}')


def few_matches(root: Path, images: Sequence[File], masks: Sequence[File], alone: Sequence[File]) -> FoundError:
    """Makes the error of a folder in which few masks belong to an image, so that this may be chance."""
    return FoundError(f'{root}: only {len(masks) - len(alone):,} of {len(masks):,} masks belong to one of '
                      f'{len(images):,} images by their names. Images: {shown(images)}. Masks without one: '
                      f'{shown(alone)}. Name each mask as its image, perhaps with an addition, or remove those that '
                      'have none')


def polygons(tree: Tree) -> list[File]:
    """Returns the files that may hold polygons: named as an image is, or, without such, all that are .json."""
    names = {name.lower() for picture in tree.pictures for name in (picture.stem, picture.name)}
    files = [file for file in tree.others if file.suffix in POLYGONS]
    return [file for file in files if file.stem.lower() in names] or [file for file in files if file.suffix == '.json']


def suffixes(files: Sequence[File]) -> list[str]:
    """Returns the suffixes of files, each once."""
    return sorted({file.suffix for file in files})


def shown(files: Sequence[File]) -> str:
    """Shows the first of files."""
    return listed([file.shown for file in files], SHOWN)

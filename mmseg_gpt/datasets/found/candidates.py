"""Tells images from masks by the names of folders and files."""

import os
import shlex
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from .matching import Index, Matches, match
from .names import core_of, meaning_of
from .tree import ARRAYS, File, Tree, read_tree, select
from .types import FoundError

PHOTOS = frozenset(('.jpg', '.jpeg', '.jpe', '.jfif', '.webp'))
ENOUGH = 0.5  # of the masks must belong to an image so that nothing else is tried


@dataclass
class Candidates:
    """The files that may be images and those that may be masks, and what tells them apart.

    Attributes:
        images: Files that may be images.
        masks: Files that may be masks.
        told_by: What tells one from the other: 'given' by the user, names of 'folders', names of 'files', their
            'suffixes', or two 'twin folders', whose files have the same names.
    """
    images: list[File]
    masks: list[File]
    told_by: str


def look(tree: Tree) -> tuple[Candidates, Matches]:
    """Finds the images and masks of a folder in the way in which most masks belong to an image.

    Raises:
        FoundError: a mask fits several images, or nothing tells which of two files or folders has the masks.
    """
    best = Candidates(tree.pictures, [], 'folders'), Matches()
    for way in (by_folders, by_file_names, by_suffixes, by_twin_folders):
        found = way(tree.pictures)
        if not found.images or not found.masks:
            continue
        matches = match(found.images, found.masks)
        if len(matches.masks) > len(best[1].masks) or not best[0].masks:
            best = found, matches
        if len(found.masks) - len(matches.alone) >= ENOUGH * len(found.masks):
            break
    return best


def look_at_given(folder: Path | None, images: str | Path | None,
                  masks: str | Path | None) -> tuple[Tree, Candidates, Matches]:
    """Finds images and masks where the user says where one or both are; see :func:`find_pairs`.

    Raises:
        FoundError: a folder is not there, or no file fits a pattern.
    """
    image_folder, mask_folder = (folder_of(given, folder, option) for given, option in (
        (images, '--images'), (masks, '--masks')))
    if not (folder or image_folder):
        raise FoundError('say where the images are: give the folder that holds everything, or that of the images')
    tree = both(image_folder, mask_folder) if mask_folder and not folder else read_tree(folder or image_folder)
    if image_folder and image_folder == mask_folder:
        return tree, *look(read_tree(image_folder).shown_from(tree.root))
    given_images, given_masks = (chosen(tree, given, place, option) for given, place, option in (
        (images, image_folder, '--images'), (masks, mask_folder, '--masks')))
    if mask_folder and image_folder and image_folder in mask_folder.parents:  # masks below images
        given_images = without(given_images, given_masks)
    given_masks = without(given_masks, given_images)
    others = without(without(tree.pictures, given_images), given_masks)
    found = Candidates(given_images or images_among(others), given_masks or masks_among(others), 'given')
    return tree, found, match(found.images, found.masks)


def folder_of(given: str | Path | None, folder: Path | None, option: str) -> Path | None:
    """Returns the folder that an option names, below ``folder`` or not; None if it is not given, or a pattern.

    Raises:
        FoundError: it should be a folder, and is not there.
    """
    if given is None:
        return None
    places = [*([folder / given] if folder else []), Path(given)]
    if found := next((place for place in places if place.is_dir()), None):
        return Path(os.path.abspath(found))
    if any(sign in str(given) for sign in '*?['):
        return None
    raise FoundError(f'{given} ({option}) is not a folder' + (f', nor is {places[0]}' if folder else '') +
                     f"; a pattern of names has a star, as {option} '*_mask.png'")


def both(image_folder: Path, mask_folder: Path) -> Tree:
    """Reads a folder of images and one of masks, with the lists of names that lie beside them."""
    root = Path(os.path.commonpath([image_folder, mask_folder]))
    tree = Tree(root)
    for place in (image_folder, mask_folder):
        below = read_tree(place).shown_from(root)
        tree.pictures += without(below.pictures, tree.pictures)
        tree.others += without(below.others, tree.others)
        tree.broken += below.broken
    if image_folder.parent == mask_folder.parent:
        tree.others += read_tree(root, deep=False).others
    return tree


def chosen(tree: Tree, given: str | Path | None, place: Path | None, option: str) -> list[File]:
    """Returns the pictures in a folder that an option names, or those that fit its pattern; none if it is not given.

    Raises:
        FoundError: there are none, though it is given.
    """
    if given is None:
        return []
    files = read_tree(place).shown_from(tree.root).pictures if place else select(tree.pictures, str(given))
    if not files:
        raise FoundError(f'{place} ({option}) has no images' if place else
                         f"no image in {tree.root} fits {option} '{given}'; there are: {tree.suffixes()}")
    return files


def without(files: Iterable[File], others: Iterable[File]) -> list[File]:
    """Returns the files that are not among others, by their paths."""
    places = {file.place for file in others}
    return [file for file in files if file.place not in places]


def images_among(files: Sequence[File]) -> list[File]:
    """Returns the files that may be images: of each split those in folders for images, or else in folders for neither.

    Args:
        files: The files that may be images, without the masks.
    """
    splits = defaultdict(list)
    for file in files:
        if file.suffix not in ARRAYS:
            splits[file.folder.split].append(file)
    images = []
    for of_split in splits.values():
        for role in ('image', None):
            if in_role := [file for file in of_split if file.folder.role == role]:
                images += in_role
                break
    return images or [file for file in files if file.suffix not in ARRAYS and core_of(file.stem)[1] != 'mask']


def masks_among(files: Sequence[File]) -> list[File]:
    """Returns the files in folders for masks or, without any, those whose names or suffixes say that they are masks."""
    masks = by_folders(files).masks or by_file_names(files).masks or by_suffixes(files).masks
    return masks or [file for file in files if file.folder.role is None]


def by_folders(files: Sequence[File]) -> Candidates:
    """Tells images from masks by the names of their folders."""
    masks = [file for file in files if file.folder.role == 'mask']
    others = [file for file in files if file.folder.role in ('image', None) and file.suffix not in ARRAYS]
    return Candidates(images_among(others) if masks and others else [], masks, 'folders')


def by_file_names(files: Sequence[File]) -> Candidates:
    """Tells images from masks, in one folder, by the words in their names: 'a_sat.jpg' and 'a_mask.png'."""
    roles = {file: core_of(file.stem)[1] for file in files}
    images = [file for file, role in roles.items() if role in ('image', None) and file.suffix not in ARRAYS]
    index = Index(images)
    masks = [file for file, role in roles.items() if role == 'mask' and index.image_of(file)]
    # A photograph may be called 'mask' too.
    named = set(masks)
    return Candidates(images + [file for file, role in roles.items() if role == 'mask' and file not in named
                                and file.suffix not in ARRAYS] if masks else [], masks, 'files')


def by_suffixes(files: Sequence[File]) -> Candidates:
    """Tells images from masks of the same name, in one folder, by their suffixes: 'a.jpg' and 'a.png'.

    Raises:
        FoundError: nearly all files have another of the same name, and nothing tells which one is the mask.
    """
    same = defaultdict(list)
    for file in files:
        same[file.folder.path, file.stem.lower()].append(file)
    twins = [group for group in same.values() if len(group) > 1]
    images, masks = [], []
    for group in twins:
        photos = [file for file in group if file.suffix in PHOTOS]
        pictures = [file for file in group if file.suffix not in ARRAYS]
        image = photos if len(photos) == 1 else pictures if len(pictures) == 1 else []
        images += image
        masks += [file for file in group if image and file not in image]
    if not masks and len(twins) > ENOUGH * len(same):
        first, second, *_ = twins[0]
        raise FoundError(f'{first.shown} and {second.shown} have the same name, and nothing tells which one is the '
                         f"mask: say it, as --masks '*{second.suffix}'")
    alone = [group[0] for group in same.values() if len(group) == 1 and group[0].suffix not in ARRAYS]
    arrays = [group[0] for group in same.values() if len(group) == 1 and group[0].suffix in ARRAYS]
    return Candidates(images + alone if masks else [], masks + arrays if masks else [], 'suffixes')


def by_twin_folders(files: Sequence[File]) -> Candidates:
    """Tells images from masks in two folders whose names say nothing, but whose files have the same names.

    Raises:
        FoundError: nothing tells which of the two folders has the masks.
    """
    twins = twin_folders(files)
    if not twins:
        return Candidates([], [], 'twin folders')
    (first, in_first), (second, in_second) = twins
    for images, masks in ((in_first, in_second), (in_second, in_first)):
        only_photos = all(file.suffix in PHOTOS for file in images) and not any(file.suffix in PHOTOS for file in masks)
        named = images[0].folder.role == 'image' and masks[0].folder.role is None
        if only_photos or named or all(file.suffix in ARRAYS for file in masks):
            return Candidates(images, masks, 'twin folders')
    raise FoundError(f'the folders {first} and {second} have files of the same names; say which has the images and '
                     f'which the masks, as {shlex.join(["--images", first, "--masks", second])}')


def twin_folders(files: Sequence[File]) -> tuple[tuple[str, list[File]], ...] | None:
    """Finds the two folders that differ in one name and have files of the same names, if there are just two such names.

    Returns:
        Their names and files, or None.
    """
    paths = {file: tuple(file.folder.shown.split('/')) for file in files if file.folder.role in ('image', None)}
    for depth in range(max(map(len, paths.values()), default=0)):
        names: dict[str, dict[Hashable, File]] = defaultdict(dict)
        for file, path in paths.items():
            if len(path) > depth and not meaning_of(path[depth]).split:
                names[path[depth]][path[:depth] + path[depth + 1:], core_of(file.stem)[0]] = file
        if len(names) > 30:
            continue
        twins = [pair for pair in combinations(names.items(), 2)
                 if len(pair[0][1].keys() & pair[1][1].keys()) >= ENOUGH * min(len(files) for _, files in pair)]
        if len(twins) == 1:
            return tuple((name, list(files.values())) for name, files in twins[0])
    return None

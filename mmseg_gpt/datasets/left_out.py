"""Checks of what a dataset does not take from its folders, or takes unnoticed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .folders import has_folders, has_list, list_files, listed_names, name_few, normalised, suffixes
from .introspect import sample_files

# Suffixes of images that OpenCV reads, of GIF from version 4.11; and of others, which it may not read.
READ = frozenset(('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.pbm', '.pgm', '.ppm', '.pnm', '.tif',
                  '.tiff', '.webp', '.jp2', '.gif'))
UNREAD = frozenset(('.heic', '.heif', '.avif', '.jxl', '.dng', '.raw', '.exr', '.hdr'))


def left_out(source: object) -> list[str]:
    """Reports images that a dataset leaves out, and folders that it takes by mistake, with the option that helps.

    Args:
        source: A dataset that lists a folder: one of mmsegmentation's with ``img_suffix``, or mmpretrain's
            CustomDataset; its files need not have been listed yet. There is nothing to say of others and of those with
            ``ann_file``, which say themselves what they take.

    Returns:
        list: One sentence for each kind of them.
    """
    if has_class_folders(source):
        return left_out_of_classes(source)
    return left_out_of_segmentation(source) if has_folders(source) and not source.ann_file else []


def not_taken(source: object) -> list[str]:
    """Reports images that a dataset does not take for good reasons: hidden ones, and those not in its list.

    Args:
        source: A dataset as for :func:`left_out`, or one with ``ann_file`` whose images have been listed.

    Returns:
        list: One sentence for each kind of them.
    """
    if not (has_class_folders(source) or has_folders(source) or has_list(source)):
        return []
    folder = source.data_prefix['img_path']
    notes = name_few(images(list_files(folder, hidden=True)), folder, 'hidden images, which are not taken')
    if has_class_folders(source):
        full = {Path(file).parts[0] for file in list_files(folder) if source.is_valid_file(file)}
        empty = class_folders(folder) - full if source.with_label else ()
        return notes + name_few(empty, folder, 'folders of classes without an image that is taken')
    if not source.ann_file:
        return notes + name_few(companions(source), folder, f'images beside others of the suffix {source.img_suffix} '
                                '(img_suffix) and named like them, which are not taken')
    if has_folders(source):
        taken = {name + source.img_suffix for name in listed_names(source)}
    else:
        taken = {os.path.relpath(image, folder) for i in range(len(source))
                 if (image := sample_files(source.get_data_info(i), False)[0])}
    others = without_labels(source, list_files(folder) - {os.path.normpath(file) for file in taken})
    return notes + name_few(others, folder, f'images that are not in {source.ann_file}, and are not taken')


def has_class_folders(source: object) -> bool:
    """Says whether a dataset is a CustomDataset of mmpretrain that lists a local folder."""
    prefix = getattr(source, 'data_prefix', None)
    return (all(hasattr(source, name) for name in ('extensions', 'is_valid_file', 'with_label')) and not source.ann_file
            and isinstance(prefix, dict) and bool(prefix.get('img_path')) and '://' not in prefix['img_path'])


def left_out_of_classes(source: object) -> list[str]:
    """As :func:`left_out`, for folders of classes."""
    folder, files = source.data_prefix['img_path'], list_files(source.data_prefix['img_path'])
    other = [file for file in images(files) if not source.is_valid_file(file)]
    known = sorted({*source.extensions, *(suffix for suffix in map(suffix_of, other) if suffix in READ)})
    problems = by_suffix(other, folder, 'their suffix is not in extensions',
                         f'Give the dataset extensions={tuple(known)}')
    if source.with_label:
        loose = [file for file in files if os.path.dirname(file) == '' and source.is_valid_file(file)]
        problems += name_few(loose, folder, 'images left out, because they are in no folder of a class')
        dotted = [name for name in class_folders(folder) if name.startswith('.')]
        problems += name_few(dotted, folder, 'hidden folders, each of which is taken for a class: remove them')
    elif taken := [file for file in files if in_hidden_folder(file) and source.is_valid_file(file)]:
        problems += name_few(taken, folder, 'images in hidden folders, which are taken: remove the folders')
    return problems


def left_out_of_segmentation(source: object) -> list[str]:
    """As :func:`left_out`, for images and label maps."""
    folder, suffix = source.data_prefix['img_path'], source.img_suffix
    files = list_files(folder)
    beside = set(companions(source))
    # overlooked_images says which suffixes are only spelt differently.
    other = [file for file in other_images(source, files)
             if file not in beside and not normalised(file).endswith(normalised(suffix))]
    kinds = sorted({suffix_of(file) for file in other} & READ)
    problems = by_suffix(other, folder, f'they do not end with {suffix} (img_suffix)',
                         f'The dataset takes them with img_suffix={" or ".join(map(repr, kinds))} in its place, or, '
                         'beside the others, in a ConcatDataset of one dataset for each suffix')
    taken = [file for file in files if in_hidden_folder(file) and file.endswith(suffix)]
    return problems + name_few(taken, folder, 'images in hidden folders, which are taken: remove the folders')


def without_labels(source: object, files: Iterable[str]) -> list[str]:
    """Returns the images among the files of a dataset's image folder, but not label maps that lie there too."""
    folder, labels = (source.data_prefix.get(name) for name in ('img_path', 'seg_map_path'))
    if not labels:
        return images(files)
    inside = os.path.relpath(labels, folder)
    here = '' if inside == '.' else inside + os.sep
    return [file for file in images(files) if not (file.startswith(here) and file.endswith(source.seg_map_suffix))]


def other_images(source: object, files: Iterable[str]) -> list[str]:
    """Returns the images of a segmentation dataset's image folder with another suffix, but not its label maps."""
    return [file for file in without_labels(source, files) if not file.endswith(source.img_suffix)]


def companions(source: object) -> list[str]:
    """Returns images that belong to another in the same folder: ``a_depth.png`` and ``a.png`` to ``a.jpg``."""
    files = list_files(source.data_prefix['img_path'])
    stems = {file.removesuffix(source.img_suffix) for file in files if file.endswith(source.img_suffix)}
    return [file for file in other_images(source, files) if any(
        file[:end] in stems for end, sign in enumerate(file) if sign in '._-')]


def by_suffix(files: Sequence[str], folder: str, why: str, advice: str) -> list[str]:
    """Counts images that are left out by their suffix, in one sentence for those that are read and one for others."""
    said = []
    for known, then in ((READ, advice), (UNREAD, 'Convert them to .png first: OpenCV may not read them')):
        if found := [file for file in files if suffix_of(file) in known]:
            said.append(f'{folder}: images left out, because {why} ({len(found):,}): {suffixes(found)}. {then}')
    return said


def class_folders(folder: str) -> set[str]:
    """Returns the names of the folders in a folder, which need not exist."""
    return {entry.name for entry in Path(folder).iterdir() if entry.is_dir()} if Path(folder).is_dir() else set()


def images(files: Iterable[str]) -> list[str]:
    """Returns the files that are images by their suffix."""
    return [file for file in files if suffix_of(file) in READ | UNREAD]


def suffix_of(file: str) -> str:
    """Returns the suffix of a file in lower case."""
    return os.path.splitext(file)[1].lower()


def in_hidden_folder(file: str) -> bool:
    """Says whether a path has a folder whose name begins with a dot."""
    return any(part.startswith('.') for part in Path(file).parts[:-1])

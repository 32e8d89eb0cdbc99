"""Checks of a dataset's folders: which files are missing, and which would be left out unnoticed."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..files import folders_below
from ..wording import listed
from .introspect import has_transform, sample_files

SHOWN = 3  # names in a message, of possibly thousands


def check_folders(source: object) -> list[str]:
    """Checks that there are images with the suffix, and that images and label maps belong to each other.

    Args:
        source: A dataset with ``img_suffix``, ``seg_map_suffix`` and ``data_prefix``, as mmsegmentation's are; its
            files need not have been listed yet (``lazy_init=True``). Or a dataset that has read a list, whose files
            must exist. Other datasets pass unchecked, because their layout is unknown.

    Returns:
        list: One sentence for each problem.
    """
    if has_list(source):
        return name_few(absent_images(source), source.img_prefix, f'images of {source.ann_file} that are not there')
    if lists_pairs(source):
        infos = [source.get_data_info(i) for i in range(len(source))]
        labels = absent(info['seg_map_path'] for info in infos if info.get('seg_map_path'))
        return [*name_few(absent(info['img_path'] for info in infos), source.ann_file, 'images that are not there'),
                *name_few(labels, source.ann_file, 'label maps that are not there')]
    if not has_folders(source):
        return []
    image_folder, label_folder = (source.data_prefix.get(name) for name in ('img_path', 'seg_map_path'))
    files = list_files(image_folder)
    names = listed_names(source) or {f[:-len(source.img_suffix)] for f in files if f.endswith(source.img_suffix)}
    if not names:
        return [f'{image_folder} has no file that ends with {source.img_suffix} (img_suffix), only: {suffixes(files)}']
    problems = [*report_missing(names, source.img_suffix, files, image_folder, 'images of ann_file that are not there')]
    if label_folder and has_transform(source, 'LoadAnnotations'):
        labels = list_files(label_folder)
        problems += report_missing(names, source.seg_map_suffix, labels, label_folder, 'label maps that are not there')
        if not source.ann_file:
            present = {file for file in labels if file.endswith(source.seg_map_suffix)}
            alone = present - {name + source.seg_map_suffix for name in names}
            problems += name_few(alone, label_folder, f'label maps without an image of the suffix {source.img_suffix}; '
                                 'add the images, delete the labels, or name the images to use in ann_file')
    return problems


def present_pairs(source: object, indices: Iterable[int]) -> list[tuple[str, str | None]]:
    """Returns the image and label map of samples, each pair once, without those that :func:`check_folders` misses.

    Samples that are not local files are left out. The label map is None if the pipeline does not load it.
    """
    with_label = has_transform(source, 'LoadAnnotations')
    known = has_folders(source) or has_list(source) or lists_pairs(source)
    if not has_transform(source, 'LoadImageFromFile') or getattr(source, 'backend_args', None):
        return []
    pairs = []
    for image, label in (sample_files(source.get_data_info(i), with_label) for i in indices):
        if image and '://' not in image and not (known and not Path(image).is_file()):
            pairs.append((image, None if label and known and not Path(label).is_file() else label))
    return list(dict.fromkeys(pairs))


def overlooked_images(source: object) -> list[str]:
    """Reports images that are overlooked because their suffix is spelt differently, and names that differ in case."""
    if not has_folders(source):
        return []
    folder, suffix = source.data_prefix['img_path'], source.img_suffix
    files = list_files(folder)
    spelt = [f for f in files if normalised(f).endswith(normalised(suffix)) and not f.endswith(suffix)]
    taken = [f for f in files if f.endswith(suffix)]
    counts = Counter(f.lower() for f in taken)
    return [*name_few(spelt, folder, f'images left out, because their suffix is not spelt {suffix}'),
            *name_few([f for f in taken if counts[f.lower()] > 1], folder, 'images whose names differ only in case')]


def has_folders(source: object) -> bool:
    """Says whether a dataset lists local folders as mmsegmentation does."""
    prefix = getattr(source, 'data_prefix', None)
    return (hasattr(source, 'img_suffix') and isinstance(prefix, dict) and bool(prefix.get('img_path'))
            and not getattr(source, 'backend_args', None) and '://' not in prefix['img_path'])


def has_list(source: object) -> bool:
    """Says whether a dataset is one of mmpretrain that has read its images from a list."""
    return (hasattr(type(source), 'img_prefix') and 'img_path' in source.data_prefix and bool(source.ann_file)
            and source._fully_initialized)


def lists_pairs(source: object) -> bool:
    """Says whether a dataset is one of mmsegmentation that has read its images from a list of paths."""
    return (hasattr(source, 'img_suffix') and bool(source.ann_file) and not has_folders(source)
            and not getattr(source, 'backend_args', None) and source._fully_initialized)


def absent_images(source: object) -> list[str]:
    """Returns the paths, below its image folder, of local images that a dataset of mmpretrain lacks."""
    images = [image for i in range(len(source)) if (image := sample_files(source.get_data_info(i), False)[0])]
    return [os.path.relpath(image, source.img_prefix) for image in absent(images)]


def absent(files: Iterable[str]) -> list[str]:
    """Returns the local files that are not there."""
    files = [file for file in files if '://' not in file]
    # Listing each folder once is faster than looking for each file, above all over a network.
    there = {folder: files_in(folder) for folder in {os.path.dirname(file) for file in files}}
    return [file for file in files if os.path.basename(file) not in there[os.path.dirname(file)]]


def files_in(folder: str) -> set[str]:
    """Returns the names of the files in a folder, which need not exist."""
    if not os.path.isdir(folder or '.'):
        return set()
    with os.scandir(folder or '.') as entries:
        return {entry.name for entry in entries if entry.is_file()}


def normalised(name: str) -> str:
    """Returns a name in lower case and with '.jpg' for '.jpeg'."""
    return name.lower().replace('.jpeg', '.jpg')


def listed_names(source: object) -> set[str]:
    """Returns the names, without suffix, in the dataset's ``ann_file``; empty if it has none."""
    if not source.ann_file or not Path(source.ann_file).is_file():
        return set()
    return {line.strip() for line in Path(source.ann_file).read_text(encoding='utf-8').splitlines()}


def report_missing(names: Iterable[str], suffix: str, files: set[str], folder: str, what: str) -> list[str]:
    """Says which files NAME + ``suffix`` are not among ``files``, in at most one sentence."""
    wanted = {name + suffix for name in names}
    missing = wanted - files
    sentences = name_few(missing, folder, what)
    if sentences and missing == wanted:
        sentences[0] += f'. All of them: is the suffix {suffix} right? The folder has: {suffixes(files)}'
    return sentences


def name_few(names: Iterable[str], folder: str, what: str) -> list[str]:
    """Says how many ``names`` there are and shows the first of them; returns no sentence if there are none."""
    names = sorted(names)
    if not names:
        return []
    return [f'{folder}: {what} ({len(names):,}): {listed(names, SHOWN)}']


def list_files(folder: str, hidden: bool = False) -> set[str]:
    """Returns the paths of all files below ``folder`` but hidden ones, which datasets do not take either; or of these.

    Args:
        folder: The folder.
        hidden: Whether to return the files whose names begin with a dot, and no others.
    """
    return {os.path.normpath(os.path.join(inside, name))
            for place, names in folders_below(folder) for inside in [os.path.relpath(place, folder)]
            for name in names if name.startswith('.') == hidden}


def suffixes(files: Iterable[str]) -> str:
    """Counts the suffixes of file names, the commonest first."""
    counts = Counter(Path(file).suffix or 'no suffix' for file in files)
    return ', '.join(f'{suffix} ({count:,})' for suffix, count in counts.most_common(5)) or 'nothing'

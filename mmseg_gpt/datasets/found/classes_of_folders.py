"""Finds the images of a folder and the class of each, in the layouts that people use."""

import os
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ...files import composed, is_litter
from ...wording import listed
from ..left_out import UNREAD
from .candidates import without
from .class_lists import ClassList, class_lists, names_of_numbers
from .copies import find_copies, first_copies, without_copies
from .names import meaning_of
from .splits import choose, is_frame, natural, original_of, scene_of, share_held_out
from .tree import ARRAYS, SHOWN, UNREADABLE, File, Tree, few, read_tree
from .types import FoundClasses, FoundError


@dataclass
class Labelled:
    """Images and the name of the class of each.

    Attributes:
        splits: The images of each split, or of None where nothing names it.
        layout: How they lie in the folder, as a sentence.
        notes: What the user must hear.
        order: The names of the classes in the order of their numbers, where a list numbers them.
        listed: Whether lists, not folders, say what is of which class.
    """
    splits: dict[str | None, list[tuple[File, str]]]
    layout: str
    notes: list[str] = field(default_factory=list)
    order: list[str] | None = None
    listed: bool = False


def find_labelled_images(folder: str | Path, *, val: float | None = None, seed: int = 0) -> FoundClasses:
    """Finds images in class folders or in a list with their classes, and finds or makes a validation split.

    Args:
        folder: The folder with the class folders, with the splits that have class folders, or with the list; or the
            list itself.
        val: The share of each class's training images to keep for validation, a fifth by default, if there is no such
            split.
        seed: Another seed keeps other images.

    Raises:
        FoundError: the layout is unknown, or a split has a class that the training images lack; or ``val`` is given
            and there are images for validation.
    """
    path = Path(os.path.abspath(folder))
    tree = read_tree(path.parent if path.is_file() else path)
    found = labelled_images(tree, path.name if path.is_file() else None)
    train = found.splits.get('train') or found.splits.get(None)
    if not train:
        raise FoundError(f'{path}: there are no images with a class to train on; {described(tree)}')
    classes = tuple(found.order or sorted({name for _, name in train}, key=natural))
    check_classes(path, classes, found, train)
    number = {name: i for i, name in enumerate(classes)}
    splits = {split: sorted((file.path, number[name]) for file, name in samples)
              for split, samples in (('train', train), ('val', found.splits.get('val')),
                                     ('test', found.splits.get('test'))) if samples}
    of_no_split = [file for file, _ in found.splits.get(None, ()) if found.splits.get('train')]
    notes = found.notes + few(of_no_split, 'images left out, because they are of no split')
    share = share_held_out(val, 'val' in splits)
    if 'val' not in splits:
        splits['train'], splits['val'], said = hold_out(splits['train'], classes, share, seed)
        notes += said
    doubted = two_classes([sample for own in splits.values() for sample in own], classes)
    splits, copies = without_copies({split: splits[split] for split in ('train', 'val', 'test') if split in splits})
    notes += [*copies, *doubted, *alike(classes)]
    return FoundClasses(tree.root, found.layout, classes, splits, notes)


def labelled_images(tree: Tree, only: str | None = None) -> Labelled:
    """Finds images and their classes by lists or, without any, by folders.

    Args:
        tree: The files.
        only: The list that must be read, if it is given.

    Raises:
        FoundError: there are neither lists nor class folders.
    """
    return of_lists(tree, only) or of_folders(tree)


def check_classes(path: Path, classes: Sequence[str], found: Labelled, train: Sequence[tuple[File, str]]) -> None:
    """Raises a FoundError if there are fewer than two classes, or if a split has a class that training lacks."""
    known = {name for _, name in train}
    for split in ('val', 'test'):
        for file, name in found.splits.get(split) or ():
            if name not in known:
                similar = get_close_matches(name.lower(), [each.lower() for each in known], 1, 0.8)
                alike = next((f' (is it {each}?)' for each in known if [each.lower()] == similar), '')
                raise FoundError(f'the class {name} of the split {split} has no training images{alike}: {file.shown}. '
                                 f'Add images of it to the split train, or take it out of {split}')
    if len(classes) < 2:
        raise FoundError(f'{path} has only one class, {", ".join(classes)}: classification needs two or more, each in '
                         'a folder of its name')


def of_folders(tree: Tree) -> Labelled:
    """Takes the class of each image from the name of its folder.

    Raises:
        FoundError: there are no class folders.
    """
    files = [file for file in tree.pictures if file.suffix not in ARRAYS]
    paths = {file.folder: () if file.folder.shown == '.' else tuple(file.folder.shown.split('/')) for file in files}
    splits, classes, apart = places_of_classes(dict(paths))
    found, loose = defaultdict(list), []
    for file in files:
        if file.folder in classes:
            found[splits[file.folder]].append((file, classes[file.folder]))
        else:
            loose.append(file)
    if not found:
        raise FoundError(f'{tree.root} has no class folders; {described(tree)}. Put the images of each class into a '
                         'folder of its name, or add a CSV file with the columns image and class')
    notes = few(loose, 'images left out, because they are in no folder of a class')
    deep = [file for file in files if file.folder in classes and paths[file.folder][-1] != classes[file.folder]
            and not meaning_of(paths[file.folder][-1]).split]
    notes += few(deep, 'images in subfolders of the folder of a class, which are taken as of this class')
    notes += few([file for file in files if file.suffix in UNREAD], UNREADABLE)
    notes += empty_folders(paths, classes)
    names = sorted(set(classes.values()), key=natural)
    if doubted := [name for name in names if meaning_of(name).split and meaning_of(name).whole]:
        notes.append(f'WARNING: the folders {listed(doubted)} beside those of other classes are taken for classes too; '
                     'if they are splits, put folders of classes into them')
    how = ', in folders of splits' if set(found) - {None} else ''
    return Labelled(dict(found), f'{len(names)} class folders{how}: {listed(names, 8)}', notes + apart)


def places_of_classes(paths: dict[object, tuple[str, ...]]) -> tuple[dict, dict, list[str]]:
    """Tells which part of each path is the split and which the class.

    A level at which all folders name a split, or at least two of them 'train' and another one, is that of splits. So a
    class may be called 'train' beside 'bus' and 'car'.

    Args:
        paths: The names of the folders by which images lie, by any key.

    Returns:
        The split, or None, and the class of each key, and notes. Keys without a class are left out.
    """
    splits, notes = dict.fromkeys(paths), []
    while names := {path[0] for path in paths.values() if path}:
        split_of = {name: meaning_of(name).split if meaning_of(name).whole else None for name in names}
        known = set(split_of.values()) - {None}
        if not (all(split_of.values()) or (len(known) > 1 and 'train' in known)):
            if len(names) > 1 or not any(len(path) > 1 for path in paths.values()):
                break
            split_of = {}
        if others := sorted(name for name, split in split_of.items() if split is None):
            notes.append(f'not used are the folders {listed(others)}, which are no split')
        for key, path in list(paths.items()):
            if path and split_of and not split_of[path[0]]:
                del paths[key]
            elif path:
                splits[key] = splits[key] or split_of.get(path[0])
                paths[key] = path[1:]
    within = {path[1] for path in paths.values() if len(path) > 1}
    if within and all(meaning_of(name).split and meaning_of(name).whole for name in within):
        splits.update({key: meaning_of(path[1]).split for key, path in paths.items() if len(path) > 1})
    return splits, {key: path[0] for key, path in paths.items() if path}, notes


def empty_folders(paths: Mapping, classes: Mapping) -> list[str]:
    """Says which folders beside those of classes have no images."""
    beside = defaultdict(set)
    for folder, name in classes.items():
        parts = Path(folder.path).parts
        depth = len(parts) - paths[folder][::-1].index(name) - 1
        beside[Path(*parts[:depth])].add(name)
    empty = []
    for place, names in beside.items():
        with os.scandir(place) as entries:
            empty += sorted(entry.path for entry in entries if entry.is_dir() and composed(entry.name) not in names
                            and not is_litter(entry.name))
    return [f'folders beside those of classes, without images, which are no classes ({len(empty):,}): '
            f'{listed(empty, SHOWN)}'] if empty else []


def of_lists(tree: Tree, only: str | None) -> Labelled | None:
    """Takes the class of each image from lists, or from its folder where they only name the image.

    Where lists give classes, an image without one is left out, unless its folder has the name of a class.

    Returns:
        Labelled: None without a list of images.

    Raises:
        FoundError: the list that is asked for names no images, or lists contradict each other.
    """
    lists = class_lists(tree, only)
    if only and not lists:
        raise FoundError(f'{tree.root / only} names no images that are there: write an image and its class on each '
                         f'line, with its path below {tree.root}')
    labelled = any(label is not None for each in lists for _, label, _ in each.rows)
    if not lists or not (labelled or has_class_folders(tree)):
        return None
    names, order = names_of_labels(tree, lists)
    splits: dict[str | None, dict[File, str]] = defaultdict(dict)
    unlabelled = []
    for each in lists:
        for image, label, split in each.rows:
            name = names[label] if label is not None else own_folder(image)
            if labelled and name not in names.values():
                unlabelled.append(image)
            elif splits[split].setdefault(image, name) != name:
                raise FoundError(f'{each.file.path}: the image {image.shown} has two classes, '
                                 f'{splits[split][image]} and {name}')
    named = {image for samples in splits.values() for image in samples}.union(unlabelled)
    notes = [f'{each.file.shown}: lines that name no image that is there ({len(each.missing):,} of '
             f'{len(each.missing + each.rows):,}): {listed(each.missing, SHOWN)}' for each in lists if each.missing]
    notes += few(unlabelled, 'images left out, because lists name them without a class')
    notes += few([file for file in tree.pictures if file not in named], 'images left out, because no list names them')
    files = listed([each.file.shown for each in lists])
    count = len({name for samples in splits.values() for name in samples.values()})
    return Labelled({split: list(samples.items()) for split, samples in splits.items()},
                    f'images and their classes ({count}) as {files} lists them', notes, order, True)


def names_of_labels(tree: Tree, lists: Sequence[ClassList]) -> tuple[dict[str, str], list[str] | None]:
    """Returns the name of each class as it is written in lists and, if they are numbers, the names in their order."""
    folders = defaultdict(set)
    for each in lists:
        for image, label, _ in each.rows:
            if label is not None:
                folders[label].add(own_folder(image))
    if not folders or not all(label.isdecimal() for label in folders):
        return {label: label for label in folders}, None
    names = names_of_numbers(without(tree.others, [each.file for each in lists]), folders)
    return names, list(names.values())


def has_class_folders(tree: Tree) -> bool:
    """Says whether there are at least two folders with images that are no splits."""
    return len({own_folder(file) for file in tree.pictures if not meaning_of(own_folder(file)).split}) > 1


def own_folder(file: File) -> str:
    """Returns the name of the folder that an image is in."""
    return file.folder.shown.rpartition('/')[2]


def hold_out(train: Sequence[tuple[Path, int]], classes: Sequence[str], val: float,
             seed: int) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]], list[str]]:
    """Keeps a share of each class for validation, at least one image; copies of one image stay together.

    So do frames of one video, as far as their names show it and a class has several; see :func:`.splits.choose`.

    Returns:
        The training images, those for validation, and sentences on what was done.

    Raises:
        FoundError: no class has two images.
    """
    of_class, first = defaultdict(lambda: defaultdict(list)), first_copies([image for image, _ in train])
    for sample in train:
        image = first.get(sample[0], sample[0])
        of_class[sample[1]][image.parent, original_of(image)].append(sample)
    held, single, videos = set(), [], []
    for number, groups in sorted(of_class.items()):
        if len(groups) < 2:
            single.append(classes[number])
            continue
        count = min(max(round(val * len(groups)), 1), len(groups) - 1)
        ordered = sorted(groups, key=lambda group: ([*map(composed, group[0].parts)], composed(group[1])))
        scenes, chance = scenes_of_groups(groups), random.Random(f'{seed} {number}')
        if len(set(scenes.values())) < len(groups):
            ordered.sort(key=lambda group: natural(str(groups[group][0][0])))
            places, how = choose(range(len(ordered)), [scenes[group] for group in ordered], count, chance)
            chosen = [ordered[i] for i in places]
            videos.append(f'frames of the class {classes[number]} are kept for val{how}')
        else:
            chosen = chance.sample(ordered, count)
        held.update(sample for key in chosen for sample in groups[key])
    if not held:
        raise FoundError(f'no class has two images, so none can be kept for validation: {listed(classes)}')
    notes = [f'no images for validation; kept for val: {len(held):,} of {len(train):,} images (seed {seed}), '
             f'{val:.0%} of each class']
    notes += videos
    if single:
        notes.append(f'classes with a single image, which is trained on and not validated: {listed(single)}')
    return [s for s in train if s not in held], [s for s in train if s in held], notes


def scenes_of_groups(groups: Mapping[tuple[Path, str], Sequence[tuple[Path, int]]]) -> dict[tuple[Path, str], str]:
    """Returns the video of each image, whose copies are a group, or its own name if it is no frame of one."""
    images = {group: samples[0][0] for group, samples in groups.items()}
    return {group: f'{image.parent.name}/{scene_of(image)}' if is_frame(image) else str(image)
            for group, image in images.items()}


def two_classes(samples: Sequence[tuple[Path, int]], classes: Sequence[str]) -> list[str]:
    """Says which images are in two classes, byte for byte."""
    by_class = defaultdict(list)
    for image, number in samples:
        by_class[classes[number]].append(image)
    copies = find_copies(by_class)
    shown = '; '.join(f'{copy.image} is {copy.other}' for copy in copies[:SHOWN])
    return [f'WARNING: images in two classes, byte for byte ({len(copies):,}): {shown}. Remove the wrong one of each'
            ] if copies else []


def alike(classes: Sequence[str]) -> list[str]:
    """Warns of classes whose names differ in capitals, spaces, hyphens and underscores only."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(re.sub(r'[\s_-]', '', name).casefold(), name), name) for name in classes]
    return [f'WARNING: {one!r} and {other!r} are taken for two classes. If they are one, give them one name'
            for one, other in pairs if one != other]


def described(tree: Tree) -> str:
    """Says what files there are."""
    return f'it has: {tree.suffixes()}'

"""The files of a folder, and what the names of the folders that they are in say of them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ...files import composed, is_litter, misnamed
from ...wording import listed
from ..left_out import READ, UNREAD
from .names import meanings_of
from .types import FoundError

SHOWN = 3  # names in a message
UNREADABLE = 'images of a suffix that OpenCV may not read, to be converted to .png'
ARRAYS = frozenset(('.npy', '.npz', '.mat'))
PICTURES = READ | UNREAD | ARRAYS
LISTS = frozenset(('.txt', '.csv', '.tsv', '.lst'))
POLYGONS = frozenset(('.json', '.xml', '.txt'))


@dataclass(frozen=True)
class Folder:
    """A folder with files.

    Attributes:
        path: Its absolute path.
        shown: Its path below the root, as messages show it.
        role: 'image', 'mask', 'other' or None, by the names of it and the folders above it.
        split: 'train', 'val', 'test' or None, by these names.
        rest: The names, in lower case, that say neither: those of a scene, a video or a class.
    """
    path: str
    shown: str
    role: str | None = None
    split: str | None = None
    rest: tuple[str, ...] = ()


class File(NamedTuple):
    """A file in a folder; the stem is its name without its suffix, the suffix in lower case with a dot."""
    folder: Folder
    name: str
    stem: str
    suffix: str

    @property
    def place(self) -> str:
        """Its absolute path as text, which is quicker to make and to compare than a path."""
        return f'{self.folder.path}/{self.name}'

    @property
    def path(self) -> Path:
        """Its absolute path."""
        return Path(self.folder.path, self.name)

    @property
    def shown(self) -> str:
        """Its path below the root."""
        return self.name if self.folder.shown == '.' else f'{self.folder.shown}/{self.name}'


@dataclass
class Tree:
    """The files below a root.

    Attributes:
        root: An absolute path.
        pictures: Images and arrays, by name.
        others: All other files.
        broken: Paths of links that lead nowhere.
    """
    root: Path
    pictures: list[File] = field(default_factory=list)
    others: list[File] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def suffixes(self) -> str:
        """Counts the suffixes of all files, the commonest first."""
        counts = Counter(file.suffix or 'no suffix' for file in (*self.pictures, *self.others))
        return ', '.join(f'{suffix} ({count:,})' for suffix, count in counts.most_common(5)) or 'nothing'

    def shown_from(self, root: Path) -> 'Tree':
        """Returns the same files, shown by their paths below another root."""
        shown = {}

        def moved(file: File) -> File:
            place = file.folder
            if place not in shown:
                shown[place] = replace(place, shown=Path(os.path.relpath(place.path, root)).as_posix())
            return file._replace(folder=shown[place])

        return Tree(root, [moved(file) for file in self.pictures], [moved(file) for file in self.others], self.broken)


def read_tree(root: Path, deep: bool = True) -> Tree:
    """Lists all files below a folder but hidden ones, and follows links.

    Args:
        root: The folder, as an absolute path.
        deep: Whether to list those in its folders too.

    Raises:
        FoundError: it is not a folder, or has no files at all; or a folder cannot be read, or a name cannot be written
            into a list.
    """
    if not root.is_dir():
        raise FoundError(f'{root} is not {"a folder" if root.exists() else "there"}: give a folder of images')
    tree, listed = Tree(root), []
    for place, names, broken in walk(str(root), (), deep):
        for path in (f'{place}/{name}' for name in names):
            if problem := misnamed(path):
                raise FoundError(problem)
            if len(path.splitlines()) > 1:
                raise FoundError(f'the name {path!a} has a line break, with which it fits into no list: rename it')
        listed.append((place, names))
        tree.broken += broken
    if not listed and deep:
        raise FoundError(f'{root} has no files that are not hidden')
    with_pictures = [place for place, names in listed if any(map(is_picture, names))]
    for folder, (_, names) in zip(understood([place for place, _ in listed], with_pictures, str(root)), listed):
        for name in sorted(names):
            stem, suffix = os.path.splitext(composed(name))
            (tree.pictures if is_picture(name) else tree.others).append(File(folder, name, stem, suffix.lower()))
    return tree


def is_picture(name: str) -> bool:
    """Says whether a file is an image or an array, by its name."""
    return os.path.splitext(name)[1].lower() in PICTURES


def walk(place: str, above: tuple[tuple[int, int], ...],
         deep: bool = True) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields each folder that has files, with their names and the paths of broken links.

    Args:
        place: The folder to begin with.
        above: The device and number of each folder above it: a link to one of these is not followed.
        deep: Whether to list those in its folders too.

    Raises:
        FoundError: a folder cannot be read.
    """
    status = os.stat(place)
    if not os.access(place, os.R_OK | os.X_OK):
        raise FoundError(f'the folder {place} cannot be read by this user: get the right to, or move it elsewhere')
    if (here := (status.st_dev, status.st_ino)) in above:
        return
    files, folders, broken = [], [], []
    with os.scandir(place) as entries:
        for entry in entries:
            if is_litter(entry.name):
                continue
            kind = folders if entry.is_dir() else files if entry.is_file() else broken
            kind.append(entry.path if kind is broken else entry.name)
    if files or broken:
        yield place, files, broken
    for name in sorted(folders) if deep else ():
        yield from walk(os.path.join(place, name), (*above, here))


def understood(places: list[str], with_pictures: list[str], root: str) -> list[Folder]:
    """Says what the names of folders tell of their files. What is common to all with pictures tells nothing."""
    def below_root(place: str) -> tuple[str, ...]:
        return () if place == root else tuple(composed(os.path.relpath(place, root)).split(os.sep))

    paths = [below_root(place) for place in places]
    pictured = [below_root(place) for place in with_pictures]
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*pictured)))
    meanings = meanings_of({part for path in paths for part in path})
    # A folder of images and of masks is neither: 'road_seg' with 'img' and 'ann' below it.
    with_images = {path[:i] for path in paths for i in range(len(path)) if meanings[path[-1]].role == 'image'}
    with_masks = {path[:i] for path in paths for i in range(len(path)) if meanings[path[-1]].role == 'mask'}
    neutral = with_images & with_masks
    folders = []
    for place, path in zip(places, paths):
        parts = [(part, meanings[part], path[:i + 1]) for i, part in enumerate(path) if i >= common]
        roles = [meaning.role for _, meaning, here in parts if here not in neutral]
        splits = [meaning.split for _, meaning, _ in parts if meaning.split]
        rest = tuple(part.lower() for part, meaning, _ in parts if not (meaning.role or meaning.split))
        role = next((role for role in ('mask', 'other') if role in roles), 'image' if 'image' in roles else None)
        folders.append(Folder(place, '/'.join(path) or '.', role, splits[-1] if splits else None, rest))
    return folders


def few(files: Sequence[File], what: str) -> list[str]:
    """Says how many files of a kind there are and shows the first of them; nothing if there are none."""
    return [f'{what} ({len(files):,}): {listed([file.shown for file in files], SHOWN)}'] if files else []


def select(files: list[File], pattern: str) -> list[File]:
    """Returns the files whose name, or path below the root, fits a pattern such as '*_mask.png' or 'labels/*'."""
    pattern = pattern.removeprefix('./')
    return [file for file in files if fnmatch(file.shown, pattern) or fnmatch(file.name, pattern)]

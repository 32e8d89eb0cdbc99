"""Files on the local disk: written whole or not at all, and told apart by their SHA-256."""

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import glob
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO
from unicodedata import normalize

UNFINISHED = '.unfinished'
ABANDONED = 24 * 3600  # seconds after which an unfinished file is taken to be that of a process that was killed
# Folders and files that systems and tools leave behind, and runs write; see is_litter.
LITTER = frozenset(('work_dirs', '__macosx', '@eadir', '$recycle.bin', 'system volume information', '__pycache__',
                    'lost+found', 'thumbs.db'))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to, and renames the finished file to ``path`` when it is on the disk.

    Each writer has a path of its own: of several, the file of the one that ends last stays.

    Raises:
        OSError: the file cannot be written. After any error ``path`` is as it was, and the unfinished file is removed.
    """
    remove_abandoned(path.parent)
    unfinished = path.with_name(f'{path.name}.{token_hex(4)}{UNFINISHED}')
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some file systems cannot sync the names in a folder
        sync(path.parent)


@cache  # listing a folder for each of many thousand files would take long
def remove_abandoned(folder: Path) -> None:
    """Removes unfinished files to which nothing has been written for a day, once in the life of this process."""
    with suppress(OSError):
        for file in folder.glob(f'*.{"[0-9a-f]" * 8}{UNFINISHED}'):
            if time.time() - file.lstat().st_mtime > ABANDONED:
                file.unlink()


def seconds_between(first: Path, later: Iterable[Path]) -> float:
    """Returns how long after ``first`` the latest of other files was written; 0 where none was, or it is not there."""
    times = [path.stat().st_mtime for path in later if path.is_file()]
    return max(0., max(times) - first.stat().st_mtime) if times and first.is_file() else 0.


class FolderError(ValueError):
    """Nothing can be written to a folder, or it cannot be read."""


def make_folder(folder: Path) -> None:
    """Makes a folder if it is not there, and tries whether files can be written to it.

    Raises:
        FolderError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FolderError(f'nothing can be written to the folder {folder}: {error.strerror}') from error


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk itself.

    Raises:
        OSError: the system cannot do it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file, as ``sha256sum`` prints it."""
    with open(path, 'rb') as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO, size: int | None = None) -> str:
    """Returns the SHA-256 of the first ``size`` bytes of an open file, or of all, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(1 << 20 if size is None else min(1 << 20, size - file.tell())):
        digest.update(chunk)
    return digest.hexdigest()


def listed_files(texts: Iterable[str], suffixes: Container[str], outside: Path | None = None) -> list[str]:
    """Returns the files that people name: by themselves, by folders, by patterns, and by lists.

    Args:
        texts: Each a file, a folder, whose files are taken at any depth, a pattern such as ``photos/**/*.jpg``, or a
            .txt file with one of these on each line, relative to the current folder or to its own.
        suffixes: The suffixes, in lower case, of the files to take from folders; hidden ones are left out.
        outside: A folder whose files are not taken from other folders.

    Returns:
        list: The files, each once, in the order in which they are named; those of a folder by their names.

    Raises:
        ValueError: something is not there, or a folder, pattern or list names no file.
        FolderError: a folder cannot be read.
    """
    found: dict[str, None] = {}
    for text in texts:
        path = Path(text)
        if path.is_dir():
            files = [str(file) for file in files_below(path)
                     if file.suffix.lower() in suffixes and not hidden(file.relative_to(path))]
            files = [file for file in files if outside is None or outside.resolve() not in Path(file).resolve().parents]
        elif path.is_file() and path.suffix.lower() == '.txt':
            lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
            lines = [line if os.path.exists(line) else str(path.parent / line) for line in lines]
            files = listed_files(lines, suffixes, outside)
        else:
            files = [text] if path.is_file() else sorted(filter(os.path.isfile, glob(text, recursive=True)))
        if not files:
            raise ValueError(f'there are no images in {text}' if path.exists() else f'there is no image {text}')
        found.update(dict.fromkeys(files))
    return [*found]


def files_below(folder: Path) -> list[Path]:
    """Returns the files below a folder by their names; links to folders are followed, but not in circles."""
    found = (Path(place, name) for place, names in folders_below(folder) for name in names)
    return sorted(file for file in found if file.is_file())


def folders_below(folder: str | Path, without: Path | None = None,
                  above: tuple[Path, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yields a folder and those below it with the names of their files; links are followed, but not in circles.

    Args:
        folder: Where to begin. Nothing is yielded of one that is not there.
        without: A folder that is passed over with all that is below it.
        above: The folders that led here, resolved: a link to one of them is not followed.

    Raises:
        FolderError: a folder cannot be read, so that nobody would see that its files are missing. Hidden folders and
            those of systems may be unreadable.
    """
    above = (*above, Path(folder).resolve())
    left_out = above if without is None else (*above, without.resolve())
    for place, folders, names in islice(os.walk(folder, onerror=refuse_unreadable), 1):
        yield place, names
        for below in (os.path.join(place, name) for name in folders):
            if Path(below).resolve() not in left_out:
                yield from folders_below(below, without, above)


def refuse_unreadable(error: OSError) -> None:
    """Refuses a folder that cannot be listed, unless it is not there or :func:`is_litter`.

    Args:
        error: What the system said of it.

    Raises:
        FolderError: the folder is refused.
    """
    if not (isinstance(error, (FileNotFoundError, NotADirectoryError)) or is_litter(Path(error.filename).name)):
        raise FolderError(f'the folder {error.filename} cannot be read: {error.strerror}') from error


def is_litter(name: str) -> bool:
    """Says whether a file or folder is hidden, or one that systems and tools leave behind and runs write."""
    return name.startswith('.') or name.lower() in LITTER


def composed(name: str) -> str:
    """Returns a name whose accents are one with their letters (NFC), as lists have it; some systems part them."""
    return normalize('NFC', name)


def misnamed(path: str | Path) -> str:
    """Says that a path is not UTF-8, with which OpenCV would end the process and no list can be written; else empty."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f'the name {str(path)!a} is not UTF-8, as names from old archives are not: rename the file or folder'
    return ''


def hidden(path: Path) -> bool:
    """Says whether a file, or a folder on the way to it, is hidden."""
    return any(part.startswith('.') for part in path.parts)


def names_below(files: Iterable[str | Path], folders: Iterable[str | Path] = ()) -> dict[str, str]:
    """Names what is written for each of many images, so that no two of them get the same name.

    A name is the path of the image below the deepest folder that all have in common, without its suffix:
    ``left/frame_0001``. Images that differ in nothing but their suffix keep it: ``frame_0001.jpg``.

    Args:
        files: The images.
        folders: Folders in which they lie, if these are known: names are then paths below the deepest folder that these
            have in common, however many subfolders are used.

    Returns:
        dict: The name of each image, by the image as it was given.
    """
    places = {str(file): os.path.abspath(file) for file in files}
    if not places:
        return {}
    parents = {os.path.dirname(place) for place in places.values()}
    root = os.path.commonpath(roots if (roots := [os.path.abspath(folder) for folder in folders]) else parents)
    if any(os.path.commonpath([root, parent]) != root for parent in parents):
        root = os.path.commonpath(parents)
    whole = {place: os.path.relpath(place, root) for place in places.values()}
    names = {place: os.path.splitext(path)[0] for place, path in whole.items()}
    while taken := {name for name, count in Counter(names.values()).items() if count > 1}:
        names.update({place: whole[place] for place, name in names.items() if name in taken})
    return {file: names[place] for file, place in places.items()}

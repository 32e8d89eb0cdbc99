"""Files on the local disk: written whole or not at all, and told apart by their SHA-256."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNFINISHED = '.unfinished'


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to, and renames the finished file to ``path`` when it is on the disk.

    Raises:
        OSError: the file cannot be written. After any error ``path`` is as it was, and the unfinished file is removed.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
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

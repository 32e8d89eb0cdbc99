"""Lists of names, such as train.txt, and the files that they name."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ...files import composed
from ...wording import listed
from .names import core_of, meaning_of, words_of
from .tree import LISTS, PICTURES, SHOWN, File, Tree
from .types import FoundError


class Finder:
    """Finds files by what a list calls them: a name with or without suffix, or a path of this or another machine."""

    def __init__(self, files: Iterable[File]) -> None:
        self._by_name: dict[str, list[File]] = defaultdict(list)
        for file in files:
            for name in {composed(file.name).lower(), file.stem.lower(), core_of(file.stem)[0] + '*'}:
                self._by_name[name].append(file)

    def find(self, text: str) -> File | None:
        """Returns the file that a text names, or None if there is none or more than one."""
        parts = [part for part in composed(text).strip().strip('"\'').replace('\\', '/').lower().split('/') if part]
        if not parts:
            return None
        path = PurePosixPath(parts[-1])
        names = [parts[-1], path.stem, core_of(path.stem)[0] + '*'] if path.suffix in PICTURES else [
            parts[-1], core_of(parts[-1])[0] + '*']
        found = next((self._by_name[name] for name in names if name in self._by_name), [])
        if len(found) < 2:
            return found[0] if found else None
        scores = [common_end([*file.folder.shown.lower().split('/')], parts[:-1]) for file in found]
        best = [file for file, score in zip(found, scores) if score == max(scores)]
        return best[0] if len(best) == 1 else None


def common_end(first: Sequence[str], second: Sequence[str]) -> int:
    """Returns how many parts two paths have in common at their ends."""
    same = 0
    for a, b in zip(reversed(first), reversed(second)):
        if a != b:
            break
        same += 1
    return same


@dataclass
class Lists:
    """What lists of names say.

    Attributes:
        splits: The images of each split.
        masks: The mask of an image, where a list names it too.
        files: The lists.
        notes: What the user must hear.
    """
    splits: dict[str, list[File]] = field(default_factory=dict)
    masks: dict[File, File] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_lists(tree: Tree, images: Sequence[File], masks: Sequence[File]) -> Lists:
    """Reads the lists of names in a folder, if there are any that name images.

    Raises:
        FoundError: a list is not text.
    """
    found, lists = Lists(), split_lists(tree)
    if not lists:
        return found
    of_image, of_mask = Finder(images), Finder(masks)
    for split, file in lists.items():
        named, missing = [], []
        for i, line in enumerate(read_lines(file)):
            fields = re.split(r'[,;\t]| (?=\S+$)', line)  # names may have spaces, so only the last one may divide
            image = of_image.find(line) or of_image.find(fields[0]) or of_image.find(line.split()[0])
            if image:
                named.append(image)
                if len(fields) > 1 and (mask := of_mask.find(fields[1])) and mask != image:
                    found.masks[image] = mask
            elif i:  # the first line may be a header
                missing.append(line)
        if named:
            found.splits[split] = list(dict.fromkeys(named))
            found.files.append(file)
        if missing:
            found.notes.append(f'{file.shown}{"" if named else " is not used"}: lines that name no image that is there '
                               f'({len(missing):,} of {len(missing) + len(named):,}): {listed(missing, SHOWN)}')
    return found


def split_lists(tree: Tree) -> dict[str, File]:
    """Returns the list of each split: of several folders with lists that of segmentation, or the highest."""
    by_folder = defaultdict(list)
    for file in tree.others:
        if file.suffix in LISTS and (meaning := meaning_of(file.stem)).split and meaning.whole:
            by_folder[file.folder.shown].append(file)
    if not by_folder:
        return {}
    folder = min(by_folder, key=lambda shown: ('segmentation' not in words_of(shown), shown.count('/'), shown))
    lists: dict[str, File] = {}
    for file in sorted(by_folder[folder], key=lambda file: ('trainval' in words_of(file.stem), len(file.stem))):
        lists.setdefault(meaning_of(file.stem).split, file)  # 'train' before 'trainval' and 'train_aug'
    return lists


def read_lines(file: File) -> list[str]:
    """Returns the lines of a text file that are not empty.

    Raises:
        FoundError: the file is not text.
    """
    data = file.path.read_bytes()
    if b'\0' in data[:4096] and data[:2] not in (b'\xff\xfe', b'\xfe\xff'):
        raise FoundError(f'{file.path} is not a text file, though its suffix is {file.suffix}')
    for encoding in ('utf-16',) if data[:2] in (b'\xff\xfe', b'\xfe\xff') else ('utf-8-sig', 'cp1252', 'latin-1'):
        try:
            return [line for line in data.decode(encoding).splitlines() if line.strip()]
        except UnicodeDecodeError:
            continue
    raise FoundError(f'{file.path} is not text in UTF-8 or UTF-16: save it as UTF-8')



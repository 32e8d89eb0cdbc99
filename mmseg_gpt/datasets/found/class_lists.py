"""Lists that give the class of each image: CSV files, and text such as 'daisy/image_0001.jpg 3'."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...wording import listed
from .class_table import plain_key
from .lists import Finder, read_lines
from .names import SPLITS, meaning_of, words_of
from .tree import ARRAYS, LISTS, File, Tree, is_picture
from .types import FoundError

LOOKED_AT = 50  # rows from which the columns are told
MOST_LISTS = 50  # a folder with more text files has one for each image
CLASS_COLUMNS = frozenset(('class', 'label', 'category', 'target', 'species', 'breed', 'diagnosis', 'tag'))
SPLIT_COLUMNS = frozenset(('split', 'set', 'subset', 'partition', 'isvalid'))
VALID = dict(true='val', false='train')  # in a column is_valid


@dataclass
class ClassList:
    """What a list says.

    Attributes:
        file: The list.
        rows: The image, its class as it is written, or None where it is not, and its split or None.
        missing: Lines that name no image that is there.
    """
    file: File
    rows: list[tuple[File, str | None, str | None]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def class_lists(tree: Tree, only: str | None = None) -> list[ClassList]:
    """Reads the lists of a folder that name images, and their classes or not.

    Lists for each split, as train.txt and test.txt, come before others, which are then not read.

    Args:
        tree: The files of the folder.
        only: The name of the one list to read, which lies in the folder itself.

    Raises:
        FoundError: a list has several columns that may be the class, or several classes for an image.
    """
    files = [file for file in tree.others if (file.shown == only if only else file.suffix in LISTS)]
    finder = Finder(file for file in tree.pictures if file.suffix not in ARRAYS)
    by_split: dict[str, File] = {}
    for file in sorted(files, key=lambda file: (file.shown.count('/'), 'trainval' in words_of(file.stem),
                                                len(file.stem))):
        if not only and (meaning := meaning_of(file.stem)).split and meaning.whole:
            by_split.setdefault(f'{file.folder.split} {meaning.split}', file)
    found = [read for file in by_split.values() if (read := read_list(file, finder)).rows]
    if not found and len(files) <= MOST_LISTS:
        found = [read for file in files if (read := read_list(file, finder)).rows]
    return found


def read_list(file: File, finder: Finder) -> ClassList:
    """Reads a list; it has no rows if it is not one of images."""
    lines = read_lines(file)
    found, rows = ClassList(file), split_rows(lines)
    hits = [[finder.find(cell) is not None for cell in row] for row in rows[1:LOOKED_AT + 1] or rows]
    width = max(map(len, rows), default=0)
    # The number of a class may be that of an image too, so what is no number counts more.
    counts = [sum(row[i] for row in hits if i < len(row)) for i in range(width)]
    if not counts or max(counts) == 0:
        return found
    column = max(range(width), key=lambda i: (counts[i], sum(not is_number(row, i) for row in rows[:LOOKED_AT]), -i))
    first = rows[0][column] if column < len(rows[0]) else ''
    named = finder.find(first) is not None or is_picture(first)  # of an image that is there, or not
    header = None if named or len(rows) == 1 else [cell.strip() for cell in rows[0]]
    body, texts = (rows[1:], lines[1:]) if header else (rows, lines)
    split_column = next((i for i, name in enumerate(header or ()) if plain_key(name) in SPLIT_COLUMNS), None)
    others = [i for i in range(width) if i not in (column, split_column) and not (header and header[i:i + 1] == [''])]
    looked_at = body[:LOOKED_AT]
    if len(others) == 1 and 2 * sum(not is_number(row, others[0]) and finder.find(row[others[0]]) is not None
                                    for row in looked_at) > len(looked_at):
        return found  # the second column names masks
    label_of = label_reader(file, header, body, others)
    of_file = meaning_of(file.stem).split if meaning_of(file.stem).whole else None
    for row, text in zip(body, texts):
        image = finder.find(row[column]) if column < len(row) else None
        if image is None:
            found.missing.append(text)
            continue
        split = split_of(row[split_column], file) if split_column is not None else of_file or image.folder.split
        found.rows.append((image, label_of(row), split))
    return found


def is_number(row: Sequence[str], column: int) -> bool:
    """Says whether a row has a number in a column, or nothing."""
    return column >= len(row) or row[column].isdecimal()


def split_rows(lines: Sequence[str]) -> list[list[str]]:
    """Splits lines into cells: by commas, semicolons or tabs or, without any, at their last space."""
    first = lines[0] if lines else ''
    signs = [sign for sign in '\t,;' if sign in first]
    if signs:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=max(signs, key=first.count))]
    return [line.strip().rsplit(maxsplit=1) for line in lines]


def label_reader(file: File, header: Sequence[str] | None, rows: Sequence[Sequence[str]],
                 columns: list[int]) -> Callable[[Sequence[str]], str | None]:
    """Returns a function that reads the class from a row.

    Raises:
        FoundError: several columns may be the class, or an image has several classes.
    """
    named = [i for i in columns if header and i < len(header) and set(words_of(header[i])) & CLASS_COLUMNS]
    texts = [i for i in named if not all(row[i].isdecimal() for row in rows[:LOOKED_AT] if i < len(row))]
    for choice in (columns, named, texts):
        if len(choice) == 1:
            return lambda row: row[choice[0]].strip() or None if choice[0] < len(row) else None
    if not columns:
        return lambda row: None
    flags = {'0': False, '0.0': False, '1': True, '1.0': True}
    if header and all(row[i] in flags for row in rows for i in columns if i < len(row)):
        for i, row in enumerate(rows, 2):
            if sum(flags[row[j]] for j in columns if j < len(row)) != 1:
                raise FoundError(f'{file.path}, line {i}: an image must have one class, this has '
                                 f'{sum(flags[row[j]] for j in columns if j < len(row))}')
        return lambda row: next(header[i] for i in columns if flags[row[i]])
    names = listed([header[i] if header and i < len(header) else f'column {i + 1}' for i in columns])
    raise FoundError(f'{file.path}: which column is the class? It may be {names}. Name that column class, or leave '
                     'only the image and its class')


def split_of(text: str, file: File) -> str:
    """Returns the split that a cell names.

    Raises:
        FoundError: it names none.
    """
    name = text.strip().lower()
    if split := SPLITS.get(name) or VALID.get(name):
        return split
    raise FoundError(f'{file.path}: the split must be train, val or test, not "{text}"')


def names_of_numbers(files: Iterable[File], folders: Mapping[str, set[str]]) -> dict[str, str]:
    """Names classes that a list numbers: after the folders of their images, or by a list of names.

    Args:
        files: Files, one of which may be classes.txt, with a name on each line.
        folders: The names of the folders of the images of each number.

    Returns:
        dict: The name of each number, which may be the number itself.

    Raises:
        FoundError: the names may begin with that of 0 or of 1.
    """
    numbers = sorted(folders, key=int)
    if all(len(names) == 1 for names in folders.values()) and len(set.union(*folders.values())) == len(folders):
        return {number: next(iter(folders[number])) for number in numbers}
    for file in files:
        if file.suffix == '.txt' and set(words_of(file.stem)) <= {'class', 'classes', 'name', 'label', 'category',
                                                                  'categories', 'cls'}:
            names = [line.strip() for line in read_lines(file)]
            first = min(int(numbers[0]), 1)
            if first and len(names) > int(numbers[-1]):
                raise FoundError(f'{file.path} has {len(names)} names, and images have the numbers {numbers[0]} to '
                                 f'{numbers[-1]}: is {numbers[0]} {names[int(numbers[0]) - 1]!r} or '
                                 f'{names[int(numbers[0])]!r}? Write the names in the place of the numbers, or '
                                 'rename that file')
            if int(numbers[-1]) - first < len(names):
                return {number: names[int(number) - first] for number in numbers}
    return {number: number for number in numbers}

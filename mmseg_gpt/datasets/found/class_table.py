"""Classes as people write them down: names, colours and pixel values, in a file or on the command line."""

import csv
import difflib
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...wording import listed, reason

Colour = tuple[int, int, int]

SUFFIXES, OTHER_SUFFIXES = ('.txt', '.csv', '.json', '.mat'), ('.yaml', '.yml', '.xml')
# How such files are called in datasets and in exports of CVAT, Roboflow, labelme, Supervisely, Label Studio and others.
FILES = ('classes.csv', 'classes.txt', 'classes.json', '_classes.csv', 'labelmap.txt', 'label_map.txt', 'labels.txt',
         'labels.csv', 'labels.json', 'label_colors.txt', 'class_names.txt', 'class_dict.csv', 'meta.json',
         'label_list.mat')
# Those that may hold something else: they are passed over then.
AMBIGUOUS = ('labels.csv', 'labels.json', 'labels.txt', 'meta.json')
IMAGES = re.compile(r'\b(image|file|filename|path)\b|\.(jpe?g|png|tiff?)\b', re.IGNORECASE)
UNLABELLED = {'void', 'unlabelled', 'unlabeled', 'ignore', 'ignored', 'dontcare'}
NAME_KEYS = ('name', 'class', 'classname', 'label', 'labelname', 'title', 'category')
VALUE_KEYS = ('pixelvalue', 'value', 'index', 'id', 'labelid', 'classid')
COLOUR_KEYS = ('color', 'colour', 'rgb', 'hex', 'colorrgb')
CHANNEL_KEYS = (('r', 'red'), ('g', 'green'), ('b', 'blue'))

HEX = r'#[0-9a-fA-F]{6}'
RGB = r'\d{1,3}[\s,;]+\d{1,3}[\s,;]+\d{1,3}'
NAME_AND_NUMBER = re.compile(r'(?P<name>.*\S)\s+(?P<value>\d+)')
# What a line of a text file may look like; all lines of one file look alike.
LINES = (
    re.compile(r'(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+)(:[^:]*){0,2}'),  # CVAT's labelmap.txt
    re.compile(rf'(?P<value>\d+)[\s,;:]+(?P<name>.+?)[\s,;:]+[(\[]?(?P<colour>{RGB}|{HEX})[)\]]?'),
    re.compile(rf'(?P<value>\d+)[\s,;:]+[(\[]?(?P<colour>{RGB}|{HEX})[)\]]?[\s,;:=]+(?P<name>.*[^\d\s,;:].*)'),
    re.compile(rf'(?P<name>.*[^\d\s,;:].*?)\s*[,;\t]\s*(?P<value>\d+)\s*[,;\t]\s*(?P<colour>{RGB}|{HEX})'),
    re.compile(rf'(?P<name>.*[^\d\s,;:].*?)[\s,;:=]+[(\[]?(?P<colour>{RGB}|{HEX})[)\]]?'),
    re.compile(rf'[(\[]?(?P<colour>{RGB}|{HEX})[)\]]?[\s,;:=]+(?P<name>.+)'),
    re.compile(r'(?P<value>-?\d+)\s*[,;:=\t ]\s*(?P<name>.+)'),
    re.compile(r'(?P<name>.*\S)\s*[,;:=\t]\s*(?P<value>-?\d+)'),
    NAME_AND_NUMBER,
    re.compile(r'(?P<name>.+)'),
)


class ClassTableError(ValueError):
    """A table of classes cannot be read; the message names it and says what to write instead."""


class Row(NamedTuple):
    """One line of a table of classes.

    Attributes:
        name: What the masks' author calls it.
        value: Its value in the masks, or None if the table does not say.
        colour: Its colour in the masks, or None if the table does not say.
    """
    name: str
    value: int | None = None
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassTable:
    """The meaning of the values or colours in masks.

    Attributes:
        rows: The lines of the table, in their order. Lines of the same name make one class.
        merges: For the name of a row, the class that it is merged into, if that has another name.
        source: The origin of the table, for messages: a file, or "--classes".
    """
    rows: tuple[Row, ...]
    merges: dict[str, str] = field(default_factory=dict)
    source: str = '--classes'

    @property
    def has_values(self) -> bool:
        """Whether every row says its value in the masks."""
        return all(row.value is not None for row in self.rows)

    @property
    def has_colours(self) -> bool:
        """Whether every row says its colour in the masks."""
        return all(row.colour is not None for row in self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, each once, without those whose names mean that they are ignored."""
        return self.classes()

    def classes(self, ignored: Iterable[str] = ()) -> tuple[str, ...]:
        """Returns the classes, each once, without those whose names mean that they are ignored.

        Args:
            ignored: Names of further rows and classes to leave out.
        """
        ignored = set(ignored)
        names = (self.class_of(row) for row in self.rows if row.name not in ignored)
        return tuple(dict.fromkeys(name for name in names if name not in ignored and not says_unlabelled(name)))

    def class_of(self, row: Row) -> str:
        """Returns the class that a row is merged into."""
        return self.merges.get(row.name, row.name)

    def numbered(self) -> 'ClassTable':
        """Returns the table with values for its rows, which are their positions if it gives none."""
        if self.has_values:
            return self
        return replace(self, rows=tuple(row._replace(value=place) for place, row in enumerate(self.rows)))


def says_unlabelled(name: str) -> bool:
    """Returns whether a class's name says that its pixels are not to be learned: void, unlabelled, don't care."""
    return re.sub(r"[\s_'.-]", '', name).lower() in UNLABELLED


def read_classes(text: str | Path) -> ClassTable:
    """Reads a table of classes from a file, or from text as ``--classes`` has it.

    Args:
        text: A file (.txt, .csv, .json, .mat), or names separated by commas. ``car=car+truck`` makes one class of
            several rows; ``road=0,car=1+2`` gives the values in the masks. Both may follow a file, after a comma.

    Raises:
        ClassTableError: the text or the file cannot be understood.
    """
    whole = Path(text)
    first, *rest = [str(text)] if is_file(whole) else [item.strip() for item in str(text).split(',')]
    if is_file(Path(first)):
        return merged(read_file(Path(first)), [item for item in rest if item])
    if first.lower().endswith(SUFFIXES + OTHER_SUFFIXES) or '/' in first:
        raise ClassTableError(f'{first}, which is to name the classes, is not there')
    if not all((first, *rest)):
        raise ClassTableError(f'--classes {str(text)!r} has a comma too many, or no names; write them as in '
                              '--classes road,building,sky')
    return of_items([first, *rest])


def is_file(path: Path) -> bool:
    """Returns whether a path is a file; a long text is no path."""
    try:
        return path.is_file()
    except OSError:
        return False


def of_items(items: Sequence[str]) -> ClassTable:
    """Makes a table of the names and merges on a command line."""
    rows: list[Row] = []
    merges: dict[str, str] = {}
    listed_alone = {item for item in items if '=' not in item}
    for item in items:
        name, members = parts_of(item)
        if name is None:
            rows.append(Row(item))
        elif all(re.fullmatch(r'-?\d+', member) for member in members):
            rows += [Row(name, int(member)) for member in members]
        else:
            rows += [Row(member) for member in members if member not in listed_alone]
            merges |= {member: name for member in members}
    return checked(ClassTable(tuple(rows), merges))


def parts_of(item: str) -> tuple[str | None, list[str]]:
    """Splits ``car=car+truck`` into the class and its members; the class is None for a plain name."""
    name, equals, members = item.partition('=')
    if not equals:
        return None, []
    parts = [member.strip() for member in members.split('+')]
    if not name.strip() or not all(parts):
        raise ClassTableError(f'--classes has {item!r}, which cannot be understood; several classes are merged as in '
                              'car=car+truck')
    return name.strip(), parts


def merged(table: ClassTable, items: Sequence[str]) -> ClassTable:
    """Returns a table from a file with the merges that follow it on the command line.

    Raises:
        ClassTableError: one of ``items`` is no merge, or a member of it is not in the table.
    """
    merges = dict(table.merges)
    names = {row.name for row in table.rows}
    of_value = {str(row.value): row.name for row in table.numbered().rows}
    for item in items:
        name, members = parts_of(item)
        if name is None:
            raise ClassTableError(f'--classes has {item!r} after the file {table.source}; only merges such as '
                                  'car=car+truck can follow a file')
        for member in members:
            own = member if member in names else of_value.get(member)
            if own is None:
                close = difflib.get_close_matches(member, names, 1)
                raise ClassTableError(f'--classes merges {member!r}, which {table.source} does not have' +
                                      (f'; it has {close[0]!r}' if close else f': it has {listed(sorted(names), 12)}'))
            merges[own] = name
    return replace(table, merges=merges)


def read_file(path: Path) -> ClassTable:
    """Reads a file of classes.

    Raises:
        ClassTableError: it cannot be understood.
    """
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise ClassTableError(f'{path}, which is to name the classes, is a {path.suffix} file, and these are not read: '
                              'write a .txt with a name on each line, in the order of their numbers')
    try:
        if path.suffix.lower() == '.mat':
            rows = rows_of_mat(path)
        else:
            text = path.read_text(encoding='utf-8-sig')
            rows = rows_of_json(text, path) if path.suffix.lower() == '.json' else rows_of_text(text, path)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ClassTableError(f'{path}, which is to name the classes, cannot be read: {reason(error)}') from error
    if rows and rows[0].name == '__ignore__' and all(row.value is None for row in rows):  # labelme counts from -1
        rows = [row._replace(value=place - 1) for place, row in enumerate(rows)]
    return checked(ClassTable(tuple(rows), source=str(path)))


def checked(table: ClassTable) -> ClassTable:
    """Returns a table if it makes sense.

    Raises:
        ClassTableError: it is empty, gives some classes a value and others none, or one value or colour stands for two
            classes.
    """
    if not table.rows:
        raise ClassTableError(f'{table.source} names no class')
    without = [row.name for row in table.rows if row.value is None]
    if without and len(without) < len(table.rows):
        raise ClassTableError(f'{table.source} gives the values of some classes, but not of {listed(without)}; write '
                              'them for all, as in --classes road=0,car=1+2')
    for what in ('value', 'colour'):
        seen: dict[object, Row] = {}
        for row in table.rows:
            key = getattr(row, what)
            other = seen.setdefault(key, row)
            if key is not None and table.class_of(other) != table.class_of(row):
                raise ClassTableError(f'{table.source} gives the {what} {key} to both {other.name!r} and {row.name!r}')
    for row in table.rows:
        if row.colour and max(row.colour) > 255:
            raise ClassTableError(f'{table.source} gives {row.name!r} the colour {row.colour}; channels go to 255')
    if not table.names:
        raise ClassTableError(f'{table.source} names only classes that are ignored by their names')
    return table


def rows_of_text(text: str, path: Path) -> list[Row]:
    """Reads rows of lines, or of a CSV with a header.

    Raises:
        ClassTableError: lines do not look alike.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and (not line.startswith('#') or re.match(rf'{HEX}\b', line))]
    if lines and (rows := rows_of_csv(lines, path)):
        return rows
    if len(lines) == 1 and ',' in lines[0]:
        return [Row(name.strip()) for name in lines[0].split(',') if name.strip()]
    if len(lines) > 1 and is_header(lines[0]) and any(row[1:] != (None, None) for row in rows_of_lines(lines[1:])):
        return rows_of_lines(lines[1:])
    return rows_of_lines(lines)


def is_header(line: str) -> bool:
    """Says whether a line has nothing but names of columns: ``id name`` or ``Name R G B``."""
    known = {*NAME_KEYS, *VALUE_KEYS, *COLOUR_KEYS, *(key for keys in CHANNEL_KEYS for key in keys)}
    words = {plain_key(word) for word in re.split(r'[\s,;:]+', line)}
    return len(words) > 1 and words <= known


def rows_of_lines(lines: Sequence[str]) -> list[Row]:
    """Reads rows of lines that all look alike; returns none where they do not."""
    for form in LINES:
        matches = [form.fullmatch(line) for line in lines]
        if not all(matches):
            continue
        rows = [Row(match['name'].strip().strip('"'), *in_numbers(match.groupdict())) for match in matches]
        spaced = 'value' in form.groupindex and 'colour' not in form.groupindex
        if spaced and len({row.name for row in rows}) < len(rows) and ',' not in lines[0]:
            continue  # "1 euro" and "2 euro" are names with a number in them
        if form is NAME_AND_NUMBER and (len(rows) == 1 or sorted(row.value for row in rows) not in (
                [*range(len(rows))], [*range(1, len(rows) + 1)])):
            continue  # and so are "Boeing 707" and "Airbus 320"
        return rows
    return []


def in_numbers(found: dict[str, str]) -> tuple[int | None, Colour | None]:
    """Returns the value and the colour in the parts of a line."""
    value, colour = found.get('value'), found.get('colour')
    return int(value) if value else None, as_colour(colour) if colour else None


def rows_of_csv(lines: Sequence[str], path: Path) -> list[Row]:
    """Reads rows of a CSV file whose header names its columns; returns none if it has no such header."""
    dialect = max(',;\t', key=lines[0].count)
    header, *content = csv.reader(lines, delimiter=dialect, skipinitialspace=True)
    keys = [plain_key(key) for key in header]
    if (len(keys) < 2 and path.suffix.lower() != '.csv') or not set(keys) & set(NAME_KEYS):
        return []
    rows = []
    for number, cells in enumerate(content, 2):
        entry = dict(zip(keys, (cell.strip() for cell in cells)))
        try:
            rows.append(row_of(entry))
        except ValueError as error:
            raise ClassTableError(f'{path}, line {number} ({dialect.join(cells)}): {error}') from error
    return rows


def plain_key(key: str) -> str:
    """Returns the name of a column or key in small letters alone."""
    return re.sub(r'[^a-z]', '', key.lower())


def row_of(entry: dict) -> Row:
    """Returns the row in the named fields of a class.

    Raises:
        ValueError: there is no name, or a number is none.
    """
    entry = {plain_key(str(key)): value for key, value in entry.items()}

    def first(keys: Iterable[str]) -> object:
        return next((entry[key] for key in keys if entry.get(key) not in (None, '')), None)

    name, value, colour = first(NAME_KEYS), first(VALUE_KEYS), first(COLOUR_KEYS)
    channels = [first(keys) for keys in CHANNEL_KEYS]
    if name is None:
        raise ValueError(f'no name is given; it is looked for as {listed(NAME_KEYS)}')
    if all(channel is not None for channel in channels):
        colour = channels
    return Row(str(name).strip(), None if value is None else int(str(value)),
               None if colour is None else as_colour(colour))


def as_colour(text: object) -> Colour:
    """Returns the red, green and blue in ``#rrggbb``, three numbers in a text, or a list of them.

    Raises:
        ValueError: there are no such three.
    """
    if isinstance(text, str) and re.fullmatch(HEX, text.strip()):
        number = int(text.strip()[1:], 16)
        return number >> 16, number >> 8 & 255, number & 255
    numbers = re.findall(r'\d+', text) if isinstance(text, str) else list(text)
    if len(numbers) not in (3, 4) or max(map(int, numbers)) > 255:
        raise ValueError(f'{text!r} is no colour; write red, green and blue from 0 to 255, or #rrggbb')
    return tuple(int(number) for number in numbers[:3])


def rows_of_json(text: str, path: Path) -> list[Row]:
    """Reads rows of JSON: a list of names or of objects, or an object of names, values or colours.

    Raises:
        ClassTableError: it has another form.
    """
    data = json.loads(text)
    if isinstance(data, dict):
        data = next((data[key] for key in ('classes', 'categories', 'labels', 'names') if key in data), data)
    try:
        if isinstance(data, list):
            return [row_of(each) if isinstance(each, dict) else Row(str(each)) for each in data]
        return [row_of_pair(key, value) for key, value in data.items()]
    except (AttributeError, TypeError, ValueError) as error:
        raise ClassTableError(f'{path} cannot be understood ({error}). Write a list of names, or of objects such as '
                              '{"name": "road", "value": 0, "color": [128, 64, 128]}') from error


def row_of_pair(key: str, value: object) -> Row:
    """Returns the row in a key of a JSON object and what it has: a value, a colour, or the name of the value."""
    if isinstance(value, dict):
        named = {plain_key(str(each)) for each in value}.intersection(NAME_KEYS)
        # The last of VALUE_KEYS gives way to any other value.
        return row_of({VALUE_KEYS[-1] if named and re.fullmatch(r'-?\d+', key) else 'name': key, **value})
    if isinstance(value, int) and not isinstance(value, bool):
        return Row(key, value)
    if isinstance(value, str) and re.fullmatch(r'-?\d+', key):
        return Row(value, int(key))
    return Row(key, None, as_colour(value))


def rows_of_mat(path: Path) -> list[Row]:
    """Reads the names in a MATLAB file: the only cell array of texts in it.

    Raises:
        ClassTableError: scipy is missing, or there are no such names.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ClassTableError(f'{path} is a MATLAB file, which needs scipy (pip install scipy)') from error
    cells = [value for value in loadmat(path).values() if getattr(value, 'dtype', None) == np.object_]
    if len(cells) != 1:
        raise ClassTableError(f'{path} holds {len(cells)} cell arrays; one of names is needed')
    return [Row(str(each.item() if getattr(each, 'size', 0) == 1 else each)) for each in cells[0].ravel()]


def find_classes(root: Path) -> ClassTable | None:
    """Looks for a table of classes in a folder and those directly below it, by the names that such files have.

    Args:
        root: The folder.

    Raises:
        ClassTableError: two tables contradict each other, or one cannot be understood.
    """
    folders = [root, *sorted(each for each in root.iterdir() if each.is_dir())]
    tables = []
    for path in (folder / name for folder in folders for name in FILES):
        if not is_file(path) or (path.name in AMBIGUOUS and names_images(path)):
            continue
        try:
            tables.append(read_file(path))
        except ClassTableError:
            if path.name not in AMBIGUOUS:
                raise
    for other in tables[1:]:
        if other.rows != tables[0].rows:
            raise ClassTableError(f'{tables[0].source} and {other.source} name classes differently; say which holds, '
                                  f'with --classes {shlex.quote(tables[0].source)}')
    return tables[0] if tables else None


def names_images(path: Path) -> bool:
    """Says whether a file is about images, and no table of classes, by its first two lines."""
    try:
        with open(path, encoding='utf-8-sig') as file:
            return bool(IMAGES.search(file.readline(1000) + file.readline(1000)))
    except UnicodeDecodeError:
        return True

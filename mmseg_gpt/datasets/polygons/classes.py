"""Decides which number in a mask each label gets."""

import difflib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...wording import listed
from ..found.class_table import ClassTable, find_classes, read_classes, says_unlabelled
from .shapes import Annotations, Colour, LabelsError

IGNORED = 255
BACKGROUND = ('background', '_background_', '__background__', 'bg')


class Classes(NamedTuple):
    """The classes of the masks.

    Attributes:
        names: Their names, in the order of their numbers.
        number: Number in the masks of each label.
        unlabelled: Number of pixels that no shape covers.
        source: Where the names are from, in words.
    """
    names: tuple[str, ...]
    number: dict[str, int]
    unlabelled: int
    source: str


def choose_classes(found: Annotations, source: Path, given: str | None, unlabelled_ignored: bool) -> Classes:
    """Chooses the classes: those that are given, else those of a list beside the annotations, else the tool's own.

    Args:
        found: The annotations.
        source: The file or folder that they are from.
        given: Names or a file of classes, as :func:`read_classes` takes them, or None.
        unlabelled_ignored: Whether pixels that no shape covers are ignored; else they are background, a class.

    Raises:
        LabelsError: shapes have labels that are no class, or there is no class or too many.
    """
    used = Counter(shape.label for image in found.images for shape in image.shapes)
    table = read_classes(given) if given else None
    if table is None and not found.names and source.is_dir():
        table = find_classes(source)
    if table:
        names, number, origin = of_table(table)
    else:
        names = list(found.names or sorted(used))
        names = [name for name in names if not says_unlabelled(name)]
        number, origin = {name: i for i, name in enumerate(names)}, (
            f'{found.tool}, in its order' if found.names else 'the labels of the shapes, in alphabetical order')
    background = next((i for i, name in enumerate(names) if name.lower() in BACKGROUND), None)
    if background is None and not unlabelled_ignored:
        names, number, background = ['background', *names], {name: i + 1 for name, i in number.items()}, 0
    number |= {label: IGNORED for label in used if says_unlabelled(label) and label not in number}
    refuse_unknown(used, number, names, found, origin)
    if not names:
        raise LabelsError(f'{source}: no shape has a label of a class')
    if len(names) > IGNORED:
        raise LabelsError(f'{len(names)} classes do not fit into 8-bit masks, which hold 255; merge some, as in '
                          '--classes car=car+truck')
    return Classes(tuple(names), number, IGNORED if unlabelled_ignored else background, origin)


def of_table(table: ClassTable) -> tuple[list[str], dict[str, int], str]:
    """Returns the names in a table in the order of their values, the number of each label, and the table's source."""
    rows = sorted(table.numbered().rows, key=lambda row: row.value)
    names = list(dict.fromkeys(name for row in rows if (name := table.class_of(row)) in table.names))
    number = {row.name: names.index(table.class_of(row)) if table.class_of(row) in names else IGNORED for row in rows}
    return names, number | {name: i for i, name in enumerate(names)}, table.source


def refuse_unknown(used: Counter, number: dict[str, int], names: list[str], found: Annotations, origin: str) -> None:
    """Refuses labels that are no class, with how often they occur and the classes that look like them.

    Raises:
        LabelsError: there are such labels.
    """
    unknown = {label: count for label, count in used.most_common() if label not in number}
    if not unknown:
        return
    said = []
    for label, count in unknown.items():
        near = difflib.get_close_matches(label, names, 1) or [
            name for name in names if name.lower() == label.lower()]
        said.append(f'{label!r} ({count}{f"; is {near[0]!r} meant?" if near else ""})')
    first = next(image.file for image in found.images for shape in image.shapes if shape.label in unknown)
    raise LabelsError(f'shapes have labels that are not among the classes of {origin}: {listed(said, 12)}; the first '
                      f'is in {first}. Give all classes with --classes; NAME=NAME+LABEL merges labels into one, and '
                      'one that is called "ignore" or "void" is ignored')


def palette(classes: Classes, found: Annotations) -> list[Colour] | None:
    """Returns the colour of each class, black for background; None if not all are known."""
    colours = [found.colours.get(name, (0, 0, 0) if name.lower() in BACKGROUND else None) for name in classes.names]
    return None if None in colours else colours

"""YOLO: a text file in labels/ for each image in images/, with a line for each polygon: class number, then x, y, ...

Coordinates are shares of the width and height of the image, turned as EXIF says; a .yaml file names the classes. The
path of an image is that of its text file, with images in place of the last labels. Sources:
https://docs.ultralytics.com/datasets/segment, and for paths and EXIF ultralytics/data/utils.py.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from ..found.class_table import FILES, ClassTable
from .shapes import BOX, FEW_POINTS, Annotation, Annotations, LabelsError, Shape

FOLDER = 'labels'


def may_be_yolo(path: Path) -> bool:
    """Returns whether a path, which begins with the folder of the dataset, is one that YOLO's files have."""
    return path.suffix.lower() == '.txt' and path.name not in FILES and FOLDER in map(str.lower, path.parent.parts)


def is_yolo(text: str) -> bool:
    """Returns whether a text begins with a number, or is empty, as that of an image without objects is."""
    return bool(re.match(r'\s*(-?\d|$)', text))


def names_in(data: object) -> dict[int, str]:
    """Returns the names of classes by number in the content of a .yaml file; empty if it is not about that."""
    names = data.get('names') if isinstance(data, dict) else None
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(str(number).isdecimal() for number in names):
        return {}
    return dict(sorted((int(number), str(name)) for number, name in names.items()))


def read_yolo(files: dict[Path, str], yamls: dict[Path, dict], table: ClassTable | None) -> Annotations:
    """Reads YOLO's files; a later polygon covers those before it.

    Args:
        files: The texts by file.
        yamls: The contents of the .yaml files that name classes.
        table: The classes of another list, for datasets without a .yaml file.

    Raises:
        LabelsError: the classes are not named, or twice; a line cannot be read; or the labels are of key points.
    """
    named = {str(file): names_in(data) for file, data in yamls.items()}
    if table and not named:
        named = {table.source: {row.value: row.name for row in table.numbered().rows}}
    if not named:
        raise LabelsError(f'{next(iter(files))} has class numbers, which no .yaml file names: give the folder of the '
                          'dataset, or write classes.txt with a name on each line, in the order of their numbers')
    (origin, names), *others = named.items()
    for other, theirs in others:
        if theirs != names:
            raise LabelsError(f'{origin} and {other} name the classes differently: remove one, or give the folder of '
                              'one dataset')
    for file, data in yamls.items():
        if 'kpt_shape' in data:
            raise LabelsError(f'{file} is of a dataset of key points, which has no polygons; export outlines')
    found = Annotations('YOLO', names=list(dict.fromkeys(names.values())))
    for file, text in files.items():
        shapes, left_out = [], Counter()
        for number, line in enumerate(text.splitlines(), 1):
            try:
                shapes += shapes_of(line, names, origin, left_out)
            except ValueError as error:
                raise LabelsError(f'{file}, line {number}: {error}') from error
        found.images.append(Annotation(image_of(file), file, None, shapes, left_out))
    return found


def image_of(file: Path) -> str:
    """Returns the path of the image of a text file, without its suffix."""
    *folders, stem = file.with_suffix('').parts
    place = max(i for i, folder in enumerate(folders) if folder.lower() == FOLDER)
    return Path(*folders[:place], 'images', *folders[place + 1:], stem).as_posix()


def shapes_of(line: str, names: dict[int, str], origin: str, left_out: Counter) -> list[Shape]:
    """Returns the polygon of a line; of an empty one, none, and of one with a box or too few points, it is counted.

    Raises:
        ValueError: the line has no number where one should be, or a number that cannot be.
    """
    if not line.strip():
        return []
    number, *coordinates = map(float, line.split())
    if number not in names:
        raise ValueError(f'{origin} has no class of the number {number:g}')
    if len(coordinates) % 2:
        raise ValueError(f'an odd number of coordinates ({len(coordinates)}), but each point has an x and a y')
    if len(coordinates) < 6:
        left_out[BOX if len(coordinates) == 4 else FEW_POINTS] += 1
        return []
    if wrong := [value for value in coordinates if not -1 <= value <= 2]:
        raise ValueError(f'the coordinate {wrong[0]:g} is no share of the width or height of the image, which is from '
                         '0 to 1')
    return [Shape(names[number], (np.array(coordinates).reshape(-1, 2), ), relative=True)]

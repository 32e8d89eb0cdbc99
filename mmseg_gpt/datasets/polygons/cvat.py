"""CVAT for images 1.1: one XML file for all images of a task or project."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..found.class_table import as_colour
from .shapes import Annotation, Annotations, LabelsError, Shape, ellipse, from_runs, rectangle, turned


def read_cvat(files: dict[Path, Element]) -> Annotations:
    """Reads CVAT's files; a shape with a larger ``z_order`` lies over the others.

    Args:
        files: The root element of each file.

    Raises:
        LabelsError: a file is of the format for videos.
    """
    found = Annotations('CVAT for images')
    for file, root in files.items():
        if root.find('track') is not None:
            raise LabelsError(f'{file} is in the format "CVAT for video 1.1", in which shapes move between frames; '
                              'export it again as "CVAT for images 1.1", which has a shape for each frame')
        for label in root.iter('label'):
            name = (label.findtext('name') or '').strip()
            if name and label.find('parent') is None and label.findtext('type') != 'skeleton':
                found.names += [name] if name not in found.names else []
                if colour := label.findtext('color'):
                    found.colours[name] = as_colour(colour)
        found.images += [annotation_of(image, file) for image in root.iter('image')]
    return found


def annotation_of(image: Element, file: Path) -> Annotation:
    """Returns what is drawn on one image of a file."""
    drawn = sorted(image, key=lambda each: int(each.get('z_order', 0)))  # which keeps the order of equal ones
    shapes, left_out = [], Counter()
    for each in drawn:
        if each.tag in SHAPES:
            shapes.append(SHAPES[each.tag](each.get('label'), each))
        else:
            left_out[each.tag] += 1
    size = int(image.get('width')), int(image.get('height'))
    return Annotation(image.get('name'), file, size, shapes, left_out)


def numbers(element: Element, *names: str) -> list[float]:
    """Returns attributes of an element as numbers; one that is missing is 0."""
    return [float(element.get(name, 0)) for name in names]


def points_of(element: Element) -> np.ndarray:
    """Returns the points (N, 2) of an element."""
    return np.array([point.split(',') for point in element.get('points').split(';')], float)


def box(label: str, element: Element) -> Shape:
    """Reads a rectangle, which may be turned about its centre."""
    left, top, right, bottom, degrees = numbers(element, 'xtl', 'ytl', 'xbr', 'ybr', 'rotation')
    corners = rectangle(left, top, right, bottom)
    return Shape(label, (turned(corners, degrees, corners.mean(0)), ))


def round_shape(label: str, element: Element) -> Shape:
    """Reads an ellipse, which may be turned."""
    x, y, rx, ry, degrees = numbers(element, 'cx', 'cy', 'rx', 'ry', 'rotation')
    return Shape(label, (ellipse((x, y), (rx, ry), degrees), ))


def mask(label: str, element: Element) -> Shape:
    """Reads run lengths, row by row within a rectangle; the first are not covered."""
    left, top, width, height = map(int, numbers(element, 'left', 'top', 'width', 'height'))
    return Shape(label, mask=partial(from_runs, element.get('rle').split(','), (height, width)), origin=(left, top))


SHAPES: dict[str, Callable[[str, Element], Shape]] = {
    'polygon': lambda label, element: Shape(label, (points_of(element), )),
    'polyline': lambda label, element: Shape(label, line=points_of(element)),
    'box': box,
    'ellipse': round_shape,
    'mask': mask,
}

"""labelme: a JSON file beside each image, with shapes in pixels."""

import base64
import io
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .shapes import Annotation, Annotations, Shape, ellipse, rectangle

LINES = ('line', 'linestrip')


def is_labelme(data: object) -> bool:
    """Returns whether the content of a JSON file is labelme's."""
    return isinstance(data, dict) and isinstance(data.get('shapes'), list) and 'imagePath' in data


def read_labelme(files: dict[Path, dict]) -> Annotations:
    """Reads labelme's files; groups are of no matter, as they tell objects of one class apart.

    Args:
        files: The contents by file.
    """
    found = Annotations('labelme')
    for file, data in files.items():
        size = data.get('imageWidth'), data.get('imageHeight')
        left_out: Counter = Counter()
        shapes = [shape for each in data['shapes'] if (shape := shape_of(each, left_out))]
        image = str(data['imagePath'] or file.stem).replace('\\', '/')
        found.images.append(Annotation(image, file, size if all(size) else None, shapes, left_out, (file.stem, )))
    return found


def shape_of(drawn: dict, left_out: Counter) -> Shape | None:
    """Returns one of labelme's shapes, or None if it has no area and is no line; then it is counted."""
    label, kind = str(drawn['label']), drawn.get('shape_type') or 'polygon'
    points = np.array(drawn['points'], float).reshape(-1, 2)
    if kind == 'mask' and drawn.get('mask'):
        return Shape(label, mask=partial(decoded, drawn['mask']), origin=(round(points[0, 0]), round(points[0, 1])))
    if kind in LINES and len(points) > 1:
        return Shape(label, line=points)
    if kind == 'rectangle' and len(points) == 2:
        return Shape(label, (rectangle(*points.min(0), *points.max(0)), ))
    if kind == 'circle' and len(points) == 2:
        return Shape(label, (ellipse(points[0], [np.linalg.norm(points[1] - points[0])] * 2), ))
    if kind in ('polygon', 'rectangle', 'oriented_rectangle') and len(points) > 2:
        return Shape(label, (points, ))
    left_out[f'{kind} of {len(points)} points' if kind == 'polygon' else kind] += 1
    return None


def decoded(data: str) -> np.ndarray:
    """Returns the covered pixels (h, w) of a mask, a PNG that is written as text."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.array(picture) > 0

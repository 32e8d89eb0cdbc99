"""Supervisely: a project with meta.json, and a JSON file in ann/ for each image in img/."""

import base64
import io
import zlib
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..found.class_table import as_colour
from .shapes import Annotation, Annotations, Shape, rectangle


def is_supervisely(data: object) -> bool:
    """Returns whether the content of a JSON file is that of an image in Supervisely."""
    return isinstance(data, dict) and isinstance(data.get('objects'), list) and isinstance(data.get('size'), dict)


def is_meta(data: object) -> bool:
    """Returns whether the content of a JSON file is that of Supervisely's meta.json."""
    return isinstance(data, dict) and isinstance(data.get('classes'), list) and all(
        isinstance(each, dict) and 'title' in each for each in data['classes'])


def read_supervisely(files: dict[Path, dict], metas: dict[Path, dict]) -> Annotations:
    """Reads Supervisely's files; a later object covers those before it.

    Args:
        files: The contents by file.
        metas: The contents of the meta.json of each project.
    """
    found = Annotations('Supervisely')
    for meta in metas.values():
        for each in meta['classes']:
            found.names += [each['title']] if each['title'] not in found.names else []
            if each.get('color'):
                found.colours[each['title']] = as_colour(each['color'])
    for file, data in files.items():
        left_out: Counter = Counter()
        shapes = [shape for each in data['objects'] if (shape := shape_of(each, left_out))]
        size = int(data['size']['width']), int(data['size']['height'])
        # photo.jpg.json belongs to photo.jpg; of old projects, photo.json does. Its place: ../img beside ann.
        image = (Path('../img') / file.stem).as_posix() if file.parent.name == 'ann' else file.stem
        found.images.append(Annotation(image, file, size, shapes, left_out))
    return found


def shape_of(drawn: dict, left_out: Counter) -> Shape | None:
    """Returns one of Supervisely's objects, or None if it has no area and is no line; then it is counted.

    Its coordinates are numbers of pixels: a rectangle from 2 to 5 is 4 pixels wide.
    """
    label, kind = drawn['classTitle'], drawn.get('geometryType')
    if kind == 'bitmap' or (kind is None and drawn.get('bitmap')):
        left, top = drawn['bitmap']['origin']
        return Shape(label, mask=partial(decoded, drawn['bitmap']['data']), origin=(int(left), int(top)))
    points = drawn.get('points', {})
    outer = np.array(points.get('exterior', []), float).reshape(-1, 2)
    if kind == 'rectangle' and len(outer) == 2:
        return Shape(label, (rectangle(*outer.min(0), *outer.max(0) + 1), ))
    if kind == 'polygon' and len(outer) > 2:
        holes = [np.array(ring, float).reshape(-1, 2) for ring in points.get('interior', [])]
        low = np.floor(outer.min(0)).astype(int)
        return Shape(label, mask=partial(filled, outer - low, [hole - low for hole in holes]),
                     origin=(int(low[0]), int(low[1])))
    if kind in ('line', 'polyline') and len(outer) > 1:
        return Shape(label, line=outer + 0.5)
    left_out[str(kind)] += 1
    return None


def decoded(data: str) -> np.ndarray:
    """Returns the covered pixels (h, w) of a bitmap: a PNG, compressed again and written as text."""
    with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(data)))) as picture:
        return np.array(picture.getchannel('A') if 'A' in picture.getbands() else picture.convert('L')) > 0


def filled(outer: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Returns the pixels (h, w) of a polygon, with its outline, less its holes with theirs."""
    width, height = np.ceil(outer.max(0)).astype(int) + 1
    picture = Image.new('1', (int(width), int(height)))
    for ring, value in [(outer, 1), *((hole, 0) for hole in holes)]:
        ImageDraw.Draw(picture).polygon([tuple(point) for point in ring.tolist()], value, value)
    return np.array(picture)

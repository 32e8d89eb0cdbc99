"""Label Studio: exported tasks as JSON, with coordinates in per cent of the image, and brushes as run lengths."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree.ElementTree import Element

import numpy as np
from PIL import ImageColor

from .shapes import Annotation, Annotations, LabelsError, Shape, ellipse, rectangle, turned

KINDS = ('polygon', 'brush', 'rectangle', 'ellipse')


def is_label_studio(data: object) -> bool:
    """Returns whether the content of a JSON file is a list of Label Studio's tasks, or one task."""
    return any(isinstance(task, dict) and isinstance(task.get('data'), dict) and isinstance(
        task.get('annotations', task.get('completions')), list) for task in tasks_in(data)[:1])


def tasks_in(data: object) -> list:
    """Returns the tasks of a file, which has one or a list of them."""
    return data if isinstance(data, list) else [data]


def read_label_studio(files: dict[Path, object], configs: dict[Path, Element]) -> Annotations:
    """Reads Label Studio's exports; a later region covers those before it.

    Of several annotations of one image, that which is marked as ground truth is taken, else the newest.

    Args:
        files: The contents by file.
        configs: The root elements of labelling configurations, which name labels and their colours.

    Raises:
        LabelsError: a region is of a turned image.
    """
    found, several, doubtful, open_tasks, predicted = Annotations('Label Studio'), 0, 0, 0, 0
    for config in configs.values():
        for label in config.iter('Label'):
            name = label.get('value')
            found.names += [name] if name not in found.names else []
            if label.get('background'):
                found.colours[name] = ImageColor.getrgb(label.get('background'))[:3]
    for file, data in files.items():
        for task in tasks_in(data):
            drawn = [each for each in task.get('annotations', task.get('completions')) if not each.get('was_cancelled')]
            several += len(drawn) > 1
            predicted += bool(task.get('predictions')) and not drawn
            if drawn:
                chosen = max(drawn, key=lambda each: (bool(each.get('ground_truth')), each.get('updated_at') or '',
                                                      each.get('id') or 0))
                regions = chosen.get('result', [])
                doubtful += sum(len(region.get('value', {}).get(region.get('type')) or ()) > 1 for region in regions)
                found.images.append(annotation_of(task, regions, file))
            else:
                open_tasks += 1
    if several:
        found.notes.append('images with several annotations, of which that marked as ground truth is taken, else the '
                           f'newest ({several})')
    if doubtful:
        found.notes.append(f'WARNING: regions with several labels, of which the first is taken ({doubtful})')
    if open_tasks:
        found.notes.append(f'tasks without an annotation, which are left out ({open_tasks})' + (
            f'; of these, with predictions, which are not taken for labels ({predicted})' if predicted else ''))
    return found


def annotation_of(task: dict, regions: list[dict], file: Path) -> Annotation:
    """Returns the annotation in the regions of a task."""
    labels = {region.get('id'): region['value']['labels'] for region in regions if region.get('type') == 'labels'}
    shapes, left_out, size = [], Counter(), None
    names = list(image_names(task))
    for region in regions:
        kind = region.get('type', '').removesuffix('labels')
        value = region.get('value', {})
        label = (value.get(region.get('type')) or labels.get(region.get('id')) or [None])[0]
        if kind not in KINDS or label is None:
            left_out[region.get('type') or 'region'] += region.get('type') != 'labels'
            continue
        if region.get('image_rotation'):
            raise LabelsError(f'{file}: a region of {names[0]} was drawn on an image turned by '
                              f'{region["image_rotation"]} degrees; turn the image itself, and label it again')
        size = int(region['original_width']), int(region['original_height'])
        shape = shape_of(kind, label, value, size)
        if shape is None:
            left_out[kind] += 1
        else:
            shapes.append(shape)
    return Annotation(names[0], file, size, shapes, +left_out, tuple(names[1:]))


def image_names(task: dict) -> Iterator[str]:
    """Yields what the image of a task may be called: the uploaded file, and the last part of its address.

    Label Studio puts eight hexadecimal digits and a hyphen before the name of an upload.
    """
    values = [value for value in task['data'].values() if isinstance(value, str)]
    address = urlsplit(str(task['data'].get('image') or task['data'].get('img') or (values or [''])[0]))
    # Of files on the server's own disk the path is in the query: /data/local-files/?d=folder/photo.jpg
    path = parse_qs(address.query).get('d', [unquote(address.path)])[0].lstrip('/')
    known = dict.fromkeys(name for name in (task.get('file_upload'), path) if name)
    for name in known or [f'task {task.get("id")}']:
        yield name
        prefix, hyphen, rest = Path(name).name.partition('-')
        if hyphen and len(prefix) == 8 and not set(prefix) - set('0123456789abcdef'):
            yield rest


def shape_of(kind: str, label: str, value: dict, size: tuple[int, int]) -> Shape | None:
    """Returns the shape of a region in pixels, or None if it has no area."""
    scale = np.array(size) / 100
    if kind == 'brush':
        return Shape(label, mask=partial(brush_mask, bytes(value['rle']), *size)) if value.get('rle') else None
    if kind == 'polygon':
        points = np.array(value['points'], float).reshape(-1, 2) * scale
        return Shape(label, (points, )) if len(points) > 2 else None
    place = np.array([value['x'], value['y']], float) * scale
    if kind == 'ellipse':
        radii = np.array([value['radiusX'], value['radiusY']], float) * scale
        return Shape(label, (ellipse(place, radii, value.get('rotation', 0)), ))
    corners = rectangle(*place, *place + np.array([value['width'], value['height']], float) * scale)
    return Shape(label, (turned(corners, value.get('rotation', 0), place), ))


def brush_mask(data: bytes, width: int, height: int) -> np.ndarray:
    """Returns the pixels (H, W) that a brush covers, from the packed run lengths of its RGBA picture.

    The bits are: the number of values (32), the bits of a value less 1 (5), four sizes less 1 (4 each), then runs: 1 if
    all values of the run are equal, which of the sizes (2) has its length less 1, that length, and the value or values.
    Source: the package rle-pack of thi.ng/umbrella, which Label Studio uses. Its own decoder comes with twenty other
    packages.

    Raises:
        ValueError: the data end early, or have another number of values than the picture.
    """
    bits = (np.unpackbits(np.frombuffer(data, np.uint8)) + ord('0')).tobytes()
    place = 0

    def number(length: int) -> int:
        nonlocal place
        place += length
        if place > len(bits):
            raise ValueError('its run lengths end too early')
        return int(bits[place - length:place], 2)

    total, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    if total != 4 * width * height:
        raise ValueError(f'its run lengths have {total} values, but the image is {width}x{height}')
    values = np.empty(total, np.int64)
    done = 0
    while done < total:
        equal = number(1)
        end = done + 1 + number(sizes[number(2)])
        values[done:end] = number(word) if equal else [number(word) for _ in range(end - done)]
        done = end
    return values.reshape(height, width, 4)[..., 3] > 0

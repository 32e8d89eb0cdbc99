"""COCO: JSON files with lists of images, categories and annotations; outlines are polygons or run lengths."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from .shapes import BOX, FEW_POINTS, Annotation, Annotations, LabelsError, Shape, from_runs


def is_coco(data: object) -> bool:
    """Returns whether the content of a JSON file is COCO's."""
    return isinstance(data, dict) and all(isinstance(data.get(name), list) for name in (
        'images', 'annotations', 'categories'))


def read_coco(files: dict[Path, dict], ignore_crowds: bool = False) -> Annotations:
    """Reads COCO's files, in which a later annotation covers those before it.

    Args:
        files: The contents by file.
        ignore_crowds: Whether the pixels of crowds (``iscrowd``) are to be ignored; else they are of their class.

    Raises:
        LabelsError: an annotation names an image or a category that is not there, or has run lengths of another size
            than its image; or a file is of the panoptic format.
    """
    found = Annotations('COCO')
    for file, data in files.items():
        categories = {each['id']: str(each['name']) for each in sorted(data['categories'], key=lambda each: each['id'])}
        of_image: dict[object, list[dict]] = {each['id']: [] for each in data['images']}
        for each in data['annotations']:
            if 'segments_info' in each:
                raise LabelsError(f'{file} is in the panoptic format of COCO, whose labels are in PNG files; export '
                                  'instances, which have outlines')
            if each.get('image_id') not in of_image or each.get('category_id') not in categories:
                raise LabelsError(f'{file}: annotation {each.get("id")} is of image {each.get("image_id")} and '
                                  f'category {each.get("category_id")}; one of them is not in the file')
            of_image[each['image_id']].append(each)
        found.names += [name for name in named(data, categories) if name not in found.names]
        for image in data['images']:
            size = image.get('width'), image.get('height')
            size = size if all(size) else None
            left_out: Counter = Counter()
            shapes = []
            for each in of_image[image['id']]:
                outline = each.get('segmentation')
                if isinstance(outline, dict) and size and tuple(outline['size'][::-1]) != size:
                    raise LabelsError(f'{file}: annotation {each.get("id")} has run lengths of '
                                      f'{outline["size"][1]}x{outline["size"][0]} pixels, but its image '
                                      f'{image["file_name"]} has {size[0]}x{size[1]}')
                shapes += shapes_of(each, categories[each['category_id']], ignore_crowds, left_out)
            found.images.append(Annotation(image['file_name'], file, size, shapes, left_out))
    return found


def named(data: dict, categories: dict[object, str]) -> list[str]:
    """Returns the names of a file's categories, without those that only group others and have no annotation.

    Roboflow writes such a one, with the number 0.
    """
    used = {each['category_id'] for each in data['annotations']}
    groups = {str(each.get('supercategory')) for each in data['categories']}
    return [name for number, name in categories.items() if number in used or name not in groups - {'none', 'None'}]


def shapes_of(drawn: dict, label: str, ignore_crowds: bool, left_out: Counter) -> list[Shape]:
    """Returns the parts of an annotation; of one with a box only, none, and it is counted."""
    outline, ignored = drawn.get('segmentation'), bool(ignore_crowds and drawn.get('iscrowd'))
    if isinstance(outline, dict):
        return [Shape(label, mask=partial(mask_of, outline), ignored=ignored)]
    rings = [np.array(ring, float).reshape(-1, 2) for ring in outline or [] if len(ring) >= 6]
    if not rings:
        left_out[FEW_POINTS if outline else BOX] += 1
    return [Shape(label, (ring, ), ignored=ignored) for ring in rings]


def mask_of(outline: dict) -> np.ndarray:
    """Returns the pixels (H, W) of run lengths, which go down the columns; compressed ones need pycocotools.

    Raises:
        LabelsError: pycocotools is needed and not there.
        ValueError: the run lengths do not fill the image.
    """
    height, width = outline['size']
    counts = outline['counts']
    if isinstance(counts, list):
        return from_runs(counts, (width, height)).T
    try:
        from pycocotools.mask import decode
    except ImportError as error:
        raise LabelsError('compressed run lengths of COCO need pycocotools: pip install "mmseg_gpt[labels]"') from error
    return decode(dict(size=[height, width], counts=counts.encode())).astype(bool)

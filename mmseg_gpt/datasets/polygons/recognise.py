"""Finds annotation files in a folder and tells by their content which tool has written them."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import yaml

from ...files import files_below
from ...wording import listed, reason
from ..found.class_table import ClassTableError, find_classes
from .coco import is_coco, read_coco
from .cvat import read_cvat
from .label_studio import is_label_studio, read_label_studio
from .labelme import is_labelme, read_labelme
from .shapes import BOX, Annotations, LabelsError
from .supervisely import is_meta, is_supervisely, read_supervisely
from .yolo import is_yolo, may_be_yolo, names_in, read_yolo

TOOLS = {'labelme': 'labelme', 'cvat': 'CVAT for images', 'coco': 'COCO', 'label-studio': 'Label Studio',
         'supervisely': 'Supervisely', 'yolo': 'YOLO'}
JSON_KINDS: dict[str, Callable[[object], bool]] = {
    'labelme': is_labelme, 'coco': is_coco, 'supervisely': is_supervisely, 'meta': is_meta,
    'label-studio': is_label_studio}
YAML = ('.yaml', '.yml')
XML_KINDS = {'annotations': 'cvat', 'View': 'label-config', 'annotation': 'voc'}
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ValueError)


def read_annotations(source: Path, tool: str | None = None, ignore_crowds: bool = False) -> Annotations:
    """Reads all annotations in a file, or in the files below a folder.

    Args:
        source: The file or the folder.
        tool: One of :data:`TOOLS`, whose files are taken; None for the one that they are of.
        ignore_crowds: Whether the pixels of COCO's crowds are to be ignored.

    Raises:
        LabelsError: there are none, or those of several tools, or boxes alone, or one cannot be read; or crowds are to
            be ignored in files of another tool than COCO.
        ClassTableError: a list of classes that YOLO's files need cannot be understood.
    """
    kinds = contents(source)
    there = [name for name in TOOLS if name in kinds]
    if tool and tool not in there:
        raise LabelsError(f'{source} has no annotations of {TOOLS[tool]}; ' + (
            f'it has those of {" and ".join(TOOLS[name] for name in there)}' if there else 'nor of another known tool'))
    if len(there) > 1 and not tool:
        counted = ' and '.join(f'{len(kinds[name])} files of {TOOLS[name]}' for name in there)
        raise LabelsError(f'{source} has {counted}: choose with --format {" or ".join(there)}, or give one file')
    if not there:
        boxes = ('; it has boxes of Pascal VOC, which have no outlines that a segmentation could learn from'
                 if 'voc' in kinds else '')
        raise LabelsError(f'{source} has no annotations that are known{boxes}. Known are the JSON files of labelme, '
                          'COCO, Label Studio and Supervisely, the XML file of "CVAT for images 1.1", and the .txt '
                          'files of YOLO in folders labels')
    chosen = tool or there[0]
    if ignore_crowds and chosen != 'coco':
        raise LabelsError(f'--ignore-crowds is for COCO, and {source} has annotations of {TOOLS[chosen]}: leave it out')
    readers = {
        'labelme': read_labelme, 'cvat': read_cvat, 'coco': lambda files: read_coco(files, ignore_crowds),
        'label-studio': lambda files: read_label_studio(files, kinds.get('label-config', {})),
        'supervisely': lambda files: read_supervisely(files, kinds.get('meta', {})),
        'yolo': lambda files: read_yolo(files, kinds['names'], None if kinds['names'] else find_classes(source))}
    try:
        found = readers[chosen](kinds[chosen])
    except (LabelsError, ClassTableError):
        raise
    except MALFORMED as error:
        file = next((file for file, content in kinds[chosen].items() if not is_read(readers[chosen], file, content)),
                    source)
        raise LabelsError(f'{file} lacks what a file of {TOOLS[chosen]} should have ({type(error).__name__}: '
                          f'{error})') from error
    if not found.images:
        raise LabelsError(f'{listed(sorted(map(str, kinds[chosen])))}: there is no annotated image')
    boxes = sum(image.left_out[BOX] for image in found.images)
    if boxes and not any(image.shapes for image in found.images):
        raise LabelsError(f'{source} has boxes ({boxes}) and no polygons, so a segmentation could not learn outlines '
                          'from it: export outlines, or outline the objects')
    return found


def is_read(read: Callable[[dict], Annotations], file: Path, content: object) -> bool:
    """Says whether a file can be read alone; of many, this finds the one that cannot."""
    try:
        read({file: content})
    except MALFORMED:
        return False
    return True


def contents(source: Path) -> dict[str, dict[Path, object]]:
    """Returns the content of each file of a known kind, by kind and file.

    Raises:
        LabelsError: the source is not there, or packed, or a file is damaged.
    """
    if not source.exists():
        raise LabelsError(f'{source} is not there')
    if source.is_file() and source.suffix.lower() not in ('.json', '.xml'):
        raise LabelsError(f'{source} is no .json or .xml file' + (
            ': unpack it first, and give the folder' if source.suffix.lower() in ('.zip', '.gz', '.tar') else
            ': of YOLO, give the folder of the dataset' if source.suffix.lower() in ('.txt', *YAML) else ''))
    below = [source] if source.is_file() else files_below(source)
    files = [path for path in below if path.suffix.lower() in ('.json', '.xml') or may_be_yolo(
        source.name / path.relative_to(source))]
    if source.is_file():  # what belongs to it may lie beside it, and above a folder of annotations
        files += [path for pattern in ('*.xml', 'meta.json', '../meta.json')
                  for path in sorted(source.parent.glob(pattern)) if path != source]
    kinds: dict[str, dict[Path, object]] = {}
    for file in files:
        content = parsed(file)
        if isinstance(content, ElementTree.Element):
            kind = XML_KINDS.get(content.tag)
        elif file.suffix.lower() == '.txt':
            kind = 'yolo' if is_yolo(content) else None
        else:
            kind = next((name for name, fits in JSON_KINDS.items() if fits(content)), None)
        if kind == 'labelme':
            content['imageData'] = None  # the whole image, as text
        if kind and not (source.is_file() and file != source and kind not in ('label-config', 'meta')):
            kinds.setdefault(kind, {})[file] = content
    if 'yolo' in kinds:
        yamls = {file: parsed(file) for file in below if file.suffix.lower() in YAML}
        kinds['names'] = {file: content for file, content in yamls.items() if names_in(content)}
    return kinds


def parsed(file: Path) -> object:
    """Returns the content of a JSON, YAML or text file, or the root element of an XML file.

    Raises:
        LabelsError: it is damaged.
    """
    try:
        if file.suffix.lower() == '.xml':
            return ElementTree.parse(file).getroot()
        text = file.read_text(encoding='utf-8-sig')
        if file.suffix.lower() == '.txt':
            return text
        return json.loads(text) if file.suffix.lower() == '.json' else yaml.safe_load(text)
    except (OSError, ValueError, ElementTree.ParseError, yaml.YAMLError) as error:
        raise LabelsError(f'{file} cannot be read: {reason(error)}') from error

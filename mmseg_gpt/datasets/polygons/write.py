"""Draws annotations into 8-bit masks, and puts them into a folder with links to their images."""

import csv
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...wording import listed
from ..found.classes_of_folders import alike
from ..survey import Survey
from .classes import IGNORED, Classes, choose_classes, palette
from .images import ImageFinder, put_image, size_as_shown
from .recognise import read_annotations
from .shapes import Annotation, Annotations, LabelsError, draw

MARKER, PAIRS = 'made_of.json', 'pairs.csv'
# Folders that say what lies in them, and nothing of which images belong together.
PLAIN_FOLDERS = {'images', 'image', 'img', 'imgs', 'jpegimages', 'data', 'ann', 'annotations', 'labels', 'default'}
Progress = Callable[[Iterable, int], Iterable]


class Drawing(NamedTuple):
    """An annotation with what is known of its image.

    Attributes:
        annotation: The annotation.
        image: Its image, or None if it is not there.
        name: What mask and image are called in the new folder, without a suffix.
        size: Width and height of the mask.
        turn: Whether the image is to be copied as EXIF turns it (True) or as stored (False); None for a link.
    """
    annotation: Annotation
    image: Path | None
    name: str
    size: tuple[int, int]
    turn: bool | None


@dataclass
class Converted:
    """What has been drawn.

    Attributes:
        tool: The tool that made the annotations.
        classes: The classes of the masks.
        survey: Number of masks, and pixels and images of each class.
        folder: The new folder.
        notes: Sentences for the user.
        cut: Number of shapes that extend beyond the image, by image.
    """
    tool: str
    classes: Classes
    survey: Survey
    folder: Path
    notes: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)


def convert_labels(source: str | Path, target: str | Path, *, images: str | Path | None = None,
                   classes: str | None = None, tool: str | None = None, unlabelled_ignored: bool = False,
                   ignore_crowds: bool = False, line_width: int = 10,
                   progress: Progress = lambda done, total: done) -> Converted:
    """Draws the polygons and run lengths of an annotation tool into masks.

    The new folder has ``masks/`` with 8-bit PNGs, in which 255 is ignored, ``images/`` with links to the images,
    ``classes.txt`` with the number and the name of each class, ``palette.csv`` with their colours where the tool
    says them, and ``pairs.csv`` with each image and its mask.

    Args:
        source: A file of annotations, or a folder with such files: of labelme, CVAT for images, COCO, Label Studio,
            Supervisely or YOLO (a folder).
        target: The folder to write to. It must be new, empty, or of an earlier call with the same source.
        images: Where the images are; default is the folder of the annotations, with all folders in it.
        classes: Names separated by commas, or a file of them, as ``--classes`` takes them; default is a list beside
            the annotations, else the tool's own.
        tool: One of :data:`TOOLS <mmseg_gpt.datasets.polygons.recognise.TOOLS>`, where the source has several.
        unlabelled_ignored: Whether pixels that no shape covers are 255; else they are background, a class.
        ignore_crowds: Whether the pixels of COCO's crowds are 255.
        line_width: Width of lines in pixels.
        progress: Function for a progress bar: it gets the items and their number, and passes them on.

    Raises:
        LabelsError: something is wrong; nothing was written, unless a mask among the annotations is damaged.
        ClassTableError: the classes cannot be understood.
    """
    source, target = Path(source), Path(target)
    check_target(source, target)
    found = read_annotations(source, tool, ignore_crowds)
    chosen = choose_classes(found, source, classes, unlabelled_ignored)
    folder = source if source.is_dir() else source.parent
    finder = ImageFinder(Path(images) if images else folder, target)
    drawings = match(found, finder)
    converted = Converted(found.tool, chosen, Survey(chosen.names), target,
                          found.notes + alike(chosen.names) + remarks(drawings, finder, chosen))
    begin(source, target, found, chosen)
    rows = [write_one(drawing, converted, line_width) for drawing in progress(drawings, len(drawings))]
    with (target / PAIRS).open('w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([('image', 'mask'), *rows])
    converted.notes += afterwards(converted)
    return converted


def check_target(source: Path, target: Path) -> None:
    """Refuses a folder that is not empty and was not made of this source.

    Raises:
        LabelsError: the message names what is in the way.
    """
    if target.exists() and not target.is_dir():
        raise LabelsError(f'{target} is a file; give a folder to write to')
    if not target.exists() or not any(target.iterdir()):
        return
    try:
        made_of = json.loads((target / MARKER).read_text(encoding='utf-8'))['source']
    except (OSError, ValueError, KeyError, TypeError):
        raise LabelsError(f'{target} is not empty, and was not written by this command: give a new folder') from None
    if made_of != str(source.resolve()):
        raise LabelsError(f'{target} was made of {made_of}, not of {source.resolve()}: give another folder, or remove '
                          'it first')


def match(found: Annotations, finder: ImageFinder) -> list[Drawing]:
    """Finds the image of each annotation, and compares their sizes.

    Raises:
        LabelsError: sizes differ, or are not known, or one image has two annotations.
    """
    images = [finder.find(annotation) for annotation in found.images]
    names = names_of(found.images, images)
    seen: dict[object, Annotation] = {}
    drawings, problems = [], []
    for annotation, image, name in zip(found.images, images, names):
        other = seen.setdefault(image or name, annotation)
        if other is not annotation:
            problems.append(f'{annotation.file} and {other.file} both annotate {image or name}: give the one that is '
                            'to be used')
            continue
        size, turn, problem = common_size(annotation, image)
        problems += [problem] if problem else []
        drawings.append(Drawing(annotation, image, name, size, turn))
    if problems:
        more = f', and {len(problems) - 5} more such' if len(problems) > 5 else ''
        raise LabelsError('; '.join(problems[:5]) + more)
    return drawings


def common_size(annotation: Annotation, image: Path | None) -> tuple[tuple[int, int] | None, bool | None, str | None]:
    """Returns the size of a mask, how its image is turned (see :class:`Drawing`), and what is wrong with them."""
    if image is None:
        return annotation.size, None, None if annotation.size else (
            f'{annotation.file} does not say the size of {annotation.image}, and the image is not there: say where the '
            'images are with --images DIR')
    stored, shown, turned = size_as_shown(image)
    if not turned:
        fits = annotation.size in (None, stored)
        turn = None
    else:  # tools show images as EXIF says; some read them as they are stored
        fits = annotation.size in (None, shown, stored)
        turn = annotation.size in (None, shown)
    said = None if fits else (f'{annotation.file} was drawn on {annotation.size[0]}x{annotation.size[1]} pixels, but '
                              f'{image} has {stored[0]}x{stored[1]}: is it the image that was annotated?')
    return shown if turn else stored, turn, said


def names_of(annotations: list[Annotation], images: list[Path | None]) -> list[str]:
    """Names masks by their images: the path below the folder that all have in common, without plain folders.

    Where several would have one name, plain folders and suffixes are kept.
    """
    paths = [image.absolute().parent if image else None for image in images]
    there = [str(path) for path in paths if path]
    root = os.path.commonpath(there) if there else ''
    names, whole = [], []
    for annotation, image, path in zip(annotations, images, paths):
        if image is None:
            parts, stem = Path(annotation.image.lstrip('/')).parent.parts, Path(annotation.image).name
            stem = stem[:stem.rfind('.')] if '.' in stem else stem
        else:
            parts, stem = Path(os.path.relpath(path, root)).parts, image.stem
        parts = [part for part in parts if part not in ('.', '..')]
        names.append('/'.join([*(part for part in parts if part.lower() not in PLAIN_FOLDERS), stem]))
        whole.append('/'.join([*parts, stem]) + (image.suffix.replace('.', '_') if image else ''))
    while True:
        count = Counter(names)
        longer = [full if count[name] > 1 else name for name, full in zip(names, whole)]
        if longer == names:
            return names
        names = longer


def remarks(drawings: list[Drawing], finder: ImageFinder, classes: Classes) -> list[str]:
    """Returns what the user must hear before anything is drawn."""
    meaning = 'ignored' if classes.unlabelled == IGNORED else classes.names[classes.unlabelled]
    used = {drawing.image.absolute() for drawing in drawings if drawing.image}
    said = {
        'images that are not there, of which only the masks are written; say where they are with --images DIR':
            [drawing.annotation.image for drawing in drawings if drawing.image is None],
        'images without an annotation, which are left out':
            sorted(str(path) for path in finder.all() if path.absolute() not in used),
        f'images whose annotation has no shape, so that they are all {meaning}':
            [drawing.annotation.image for drawing in drawings if not drawing.annotation.shapes],
        'images with an EXIF orientation, which are copied upright instead of linked':
            [str(drawing.image) for drawing in drawings if drawing.turn is not None]}
    notes = [f'{what} ({len(names)}): {listed(names, 3)}' for what, names in said.items() if names]
    if left_out := sum((drawing.annotation.left_out for drawing in drawings), Counter()):
        notes.append('drawings without an area, which are left out: ' + ', '.join(
            f'{kind} ({count})' for kind, count in left_out.most_common()))
    return notes


def begin(source: Path, target: Path, found: Annotations, classes: Classes) -> None:
    """Removes what an earlier call has written, and writes what is not of a single image."""
    if (target / PAIRS).is_file():
        with (target / PAIRS).open(newline='', encoding='utf-8') as file:
            for row in csv.DictReader(file):
                for name in (Path(name) for name in (row['image'], row['mask']) if name):
                    if not name.is_absolute() and '..' not in name.parts:  # as this command writes them
                        (target / name).unlink(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    (target / MARKER).write_text(json.dumps(dict(source=str(source.resolve()), tool=found.tool, classes=classes.names),
                                            indent=2), encoding='utf-8')
    # Numbered, as else masks of a single class and 255, which is ignored, would be read as background and that class.
    numbered = ''.join(f'{number} {name}\n' for number, name in enumerate(classes.names))
    (target / 'classes.txt').write_text(numbered, encoding='utf-8')
    if colours := palette(classes, found):
        with (target / 'palette.csv').open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([('name', 'r', 'g', 'b'), *(
                (name, *colour) for name, colour in zip(classes.names, colours))])


def write_one(drawing: Drawing, converted: Converted, line_width: int) -> tuple[str, str]:
    """Draws one mask, counts its pixels and links its image; returns both files as paths below the folder."""
    target, classes, survey = converted.folder, converted.classes, converted.survey
    width, height = drawing.size
    canvas = np.full((height, width), classes.unlabelled, np.uint8)
    annotation = drawing.annotation
    try:
        cut = draw(annotation.shapes, classes.number, canvas, line_width)
    except (ValueError, OSError, zlib.error) as error:
        raise LabelsError(f'{annotation.file}: a mask on {annotation.image} cannot be read: {error}') from error
    if cut:
        converted.cut[annotation.image] = cut
    mask = target / 'masks' / f'{drawing.name}.png'
    mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(mask)
    counts = np.bincount(canvas.ravel(), minlength=256)
    survey.pairs += 1
    survey.pixels += counts[:len(classes.names)]
    survey.images += counts[:len(classes.names)] > 0
    survey.ignored += int(counts[IGNORED])
    image = put_image(drawing.image, target / 'images' / drawing.name, drawing.turn) if drawing.image else None
    return image.relative_to(target).as_posix() if image else '', mask.relative_to(target).as_posix()


def afterwards(converted: Converted) -> list[str]:
    """Returns what the user must hear of what has been drawn."""
    notes, absent = [], converted.survey.absent
    if converted.cut:
        notes.append(f'shapes that reach out of their images, and are cut ({sum(converted.cut.values())}): those of '
                     f'{listed(list(converted.cut), 3)}')
    if absent:
        notes.append(f'classes without a pixel ({len(absent)}): {listed(absent, 12)}')
    return notes

"""Looks at a folder of images: finds the files, understands the masks, and says what was found."""

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from ..datasets.found import Found, FoundClasses, FoundError, find_labelled_images, find_pairs, task_of_folder
from ..datasets.found.class_table import ClassTable, ClassTableError, Row, find_classes, read_classes
from ..datasets.found.facts import size_of
from ..datasets.found.masks import MaskError
from ..datasets.found.pixels import describe_pixels, parse_bands, parse_scale
from ..datasets.found.rewrite import write_masks
from ..datasets.found.rule import distinct_colours
from ..datasets.found.understand import understand_masks
from ..datasets.reading import PixelError
from ..environment import available_cpus
from ..files import FolderError, make_folder, replacing
from ..wording import listed
from .options import OwnDataError, Request

Say = Callable[[str], None]
SPLITS = ('train', 'val', 'test')
ON_VALIDATION = ('so the result is measured on the validation images, by which the checkpoint is chosen too: it is '
                 'probably higher than on new images')
NAMES = dict(train='training', val='validation', test='test')

@dataclass
class OwnData:
    """What was found of one's own images, and where the lists of them were written.

    Attributes:
        task: 'segmentation' or 'classification'.
        root: The folder of the images.
        classes: Names of the classes.
        palette: A colour for each class.
        folder: Where the lists are, and the rewritten masks.
        lists: The list of each split, a file in ``folder``.
        counts: Number of images of each split.
        sizes: Width and height of each training image.
        pixels: Number of pixels (C,) of each class, or of images in classification, by split.
        ignored: Number of ignored pixels, by split.
        reader: The transform that reads an image.
        channels: Number of channels that it gives.
    """
    task: str
    root: Path
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    folder: Path
    lists: dict[str, Path]
    counts: dict[str, int]
    sizes: list[tuple[int, int]]
    pixels: dict[str, np.ndarray]
    ignored: dict[str, int] = field(default_factory=dict)
    reader: dict = field(default_factory=lambda: dict(type='LoadImageFromFile'))
    channels: int = 3

    @property
    def measured(self) -> str:
        """The split on which the finished model is measured: 'test', or 'val' where there is no such split."""
        return 'test' if 'test' in self.lists else 'val'

def look(options: Request, folder: Path, say: Say) -> OwnData:
    """Finds the images of a folder and their masks or classes, says what it found, and writes lists of them.

    Args:
        options: What was asked for.
        folder: Where lists and rewritten masks go. Nothing else is written to, and images stay where they are.
        say: Function that gets each sentence for the user.

    Raises:
        OwnDataError: something is wrong, or not known; the message says what to do.
    """
    try:
        task = options.task
        if task is None and options.folder and not (options.masks or options.images):
            task, why = task_of_folder(options.folder)
            say(f'{task}: {why} (--task says otherwise)')
        if task == 'classification':
            return look_at_classes(options, folder, say)
        return look_at_pairs(options, folder, say)
    except (FoundError, ClassTableError, MaskError, PixelError, FolderError) as error:
        raise OwnDataError(str(error)) from error

def look_at_pairs(options: Request, folder: Path, say: Say) -> OwnData:
    """Looks at images with masks, as :func:`look` says."""
    found = find_pairs(options.folder, images=options.images, masks=options.masks, val=options.val, seed=options.seed)
    introduce(found, say)
    measurable(found, say)
    reader = reader_of(options, [pair.image for pairs in found.splits.values() for pair in pairs], say)
    table, template = table_of(options, found.root, say), folder.parent / 'classes.csv'
    make_folder(folder)
    workers = options.workers or available_cpus()
    understood = understand_masks(found.splits, table, options.ignore, workers, bar('reading masks'),
                                  folder / 'facts.json', template)
    for sentence in understood.notes:
        say(sentence)
    for sentence in understood.warnings:
        say(f'WARNING: {sentence}')
    if understood.template:
        keep_earlier(understood.template_file, understood.template, say)
        with replacing(understood.template_file) as unfinished:
            unfinished.write_text(understood.template, encoding='utf-8')
    if understood.problems or not understood.rule:
        raise OwnDataError('\n'.join(['the masks cannot be used as they are:', *(
            f'  * {problem}' for problem in understood.problems)]))
    lists = write_masks(found.splits, understood.rule, folder, workers, bar('writing masks'))
    data = OwnData('segmentation', found.root, understood.classes, understood.rule.palette, folder, lists,
                   {split: len(pairs) for split, pairs in found.splits.items()}, understood.sizes['train'],
                   understood.pixels, understood.ignored, **reader)
    say(as_table(data, 'pixels'))
    check_enough(data)
    return data

def keep_earlier(file: Path, text: str, say: Say) -> None:
    """Renames a table that is about to be replaced by another, as somebody may have completed it."""
    if file.is_file() and file.read_text(encoding='utf-8') != text:
        names = (file.with_stem(f'{file.stem}_earlier{number}') for number in chain([''], count(2)))
        earlier = next(name for name in names if not name.exists())
        file.replace(earlier)
        say(f'{file} is written anew; what was there is now {earlier} (--classes {shlex.quote(str(earlier))} takes it)')


def look_at_classes(options: Request, folder: Path, say: Say) -> OwnData:
    """Looks at images with a class each, as :func:`look` says."""
    for name in ('masks', 'head', 'loss', 'class_weights'):
        if getattr(options, name) is not None:
            raise OwnDataError(f'--{name.replace("_", "-")} is for segmentation only, and this is a classification: '
                               'leave it out')
    found = chosen_classes(find_labelled_images(options.images or options.folder, val=options.val, seed=options.seed),
                           options)
    introduce(found, say)
    if not found.splits.get('test'):
        found.splits.pop('test', None)
        say(f'there are no test images, {ON_VALIDATION}')
    reader = reader_of(options, [image for images in found.splits.values() for image, _ in images], say)
    counts = {split: np.bincount([label for _, label in images], minlength=len(found.classes))
              for split, images in found.splits.items()}
    for split, own in counts.items():
        if absent := [name for name, number in zip(found.classes, own) if not number]:
            said = f'{len(absent)} of {len(found.classes)} classes have no {NAMES[split]} image: {listed(absent)}'
            if split == 'train':
                raise OwnDataError(f'{said}. Add some, or leave these classes out')
            say(f'WARNING: {said}')
    sizes = [size_of(str(image)) for image, _ in found.splits['train']]
    if broken := [said for size, said in sizes if size is None and said]:
        raise OwnDataError('\n'.join([f'{len(broken)} images are to be repaired or removed:', *(
            f'  * {said}' for said in broken[:3]), *(['  * ...'] if len(broken) > 3 else [])]))
    make_folder(folder)
    lists = {split: write_labels(folder / f'{split}.txt', images) for split, images in found.splits.items()}
    data = OwnData('classification', found.root, found.classes, tuple(distinct_colours(len(found.classes))), folder,
                   lists, {split: len(images) for split, images in found.splits.items()},
                   [size for size, _ in sizes if size], counts, **reader)
    say(as_table(data, 'images'))
    check_enough(data)
    return data

def chosen_classes(found: FoundClasses, options: Request) -> FoundClasses:
    """Keeps the images of the classes that are asked for, in their order, and merges those that are to be one.

    Raises:
        OwnDataError: a name is not that of a class of the images.
    """
    table = read_classes(options.classes) if options.classes else ClassTable(tuple(map(Row, found.classes)))
    for option, names in (('classes', [row.name for row in table.rows]), ('ignore', options.ignore)):
        if unknown := [name for name in names if name not in found.classes]:
            raise OwnDataError(f'--{option}: there are no images of {listed(unknown)}; the classes are '
                               f'{listed(found.classes)}')
    rows = [row for row in table.rows if row.name not in options.ignore]
    classes = tuple(dict.fromkeys(table.class_of(row) for row in rows))
    number = {found.classes.index(row.name): classes.index(table.class_of(row)) for row in rows}
    if classes == found.classes:
        return found
    splits = {split: [(image, number[label]) for image, label in images if label in number]
              for split, images in found.splits.items()}
    left_out = sum(map(len, found.splits.values())) - sum(map(len, splits.values()))
    notes = [f'images left out, because --classes or --ignore leaves their classes out: {left_out}'] if left_out else []
    return replace(found, classes=classes, splits=splits, notes=[*found.notes, *notes])

def introduce(found: Found | FoundClasses, say: Say) -> None:
    """Says what lies in a folder."""
    sizes = ', '.join(f'{len(found.splits[split])} {NAMES[split]}' for split in SPLITS if found.splits.get(split))
    say(f'{found.root}: {found.layout}')
    say(f'{sizes} {"pairs" if isinstance(found, Found) else "images"}')
    for note in found.notes:
        say(note)

def reader_of(options: Request, images: Sequence[Path], say: Say) -> dict:
    """Judges the pixels of images; returns the transform that reads them, and how many channels it gives.

    Raises:
        OwnDataError: the usual reader would change them silently, or an option makes no sense.
    """
    try:
        bands = parse_bands(options.bands) if options.bands else None
        scale = parse_scale(options.scale) if options.scale else None
        found = describe_pixels(images, bands, scale)
    except ValueError as error:
        raise OwnDataError(f'--bands {options.bands} --scale {options.scale}: {error}') from error
    for note in found.notes:
        say(note)
    if found.problems:
        bands, scale = found.recommended_bands, found.recommended_scale
        asked = ' '.join([*(['--bands ' + ','.join(map(str, bands))] if bands else []),
                          *([f'--scale {scale[0]:g}:{scale[1]:g}'] if scale else [])])
        raise OwnDataError('\n'.join([
            'the images cannot be used as they are:', *(f'  * {problem}' for problem in found.problems),
            *([f'What their values suggest: {asked}'] if asked else [])]))
    return dict(reader=found.transform(), channels=3 if bands is None else len(bands))


def measurable(found: Found, say: Say) -> None:
    """Leaves out of a test split what has no mask, which cannot be measured."""
    if pairs := found.splits.get('test'):
        with_mask = [pair for pair in pairs if pair.mask]
        if len(with_mask) < len(pairs):
            say(f'{len(pairs) - len(with_mask)} test images have no mask, so they are not measured; '
                'mmseg-gpt predict segments them')
        found.splits['test'] = with_mask
    if not found.splits.get('test'):
        found.splits.pop('test', None)
        say(f'there are no test images with masks, {ON_VALIDATION}')

def table_of(options: Request, root: Path, say: Say) -> ClassTable | None:
    """Returns the table of classes that was given, or that lies in the folder."""
    if options.classes:
        return read_classes(options.classes)
    if table := find_classes(root):
        say(f'the classes are those of {table.source} (--classes says otherwise)')
    return table

def write_labels(path: Path, images: Sequence[tuple[Path, int]]) -> Path:
    """Writes a list of images with class numbers, as mmpretrain reads it, and returns its file."""
    with replacing(path) as unfinished:
        unfinished.write_text(''.join(f'{image} {label}\n' for image, label in images), encoding='utf-8')
    return path

def check_enough(data: OwnData) -> None:
    """Refuses data of which nothing can be learnt.

    Raises:
        OwnDataError: there is only one class, or no training image.
    """
    if len(data.classes) < 2:
        raise OwnDataError(f'there is only one class, {listed(data.classes)}: nothing tells it from anything else. In '
                           'masks, let the rest be a class too, and not ignored')
    if not data.counts['train'] or not data.counts['val']:
        raise OwnDataError('there must be training and validation images')

def as_table(data: OwnData, what: str) -> str:
    """Returns the classes with their shares in each split, as text for a terminal."""
    splits = [split for split in SPLITS if split in data.pixels]
    width = max(map(len, (*data.classes, 'class'))) + 2
    lines = [f'{"class":{width}}' + ''.join(f'{NAMES[split]:>12}' for split in splits) + f'   (share of the {what})']
    totals = {split: max(int(data.pixels[split].sum()) + data.ignored.get(split, 0), 1) for split in splits}
    rows = [(name, [data.pixels[split][i] / totals[split] for split in splits]) for i, name in enumerate(data.classes)]
    if any(data.ignored.values()):
        rows.append(('(ignored)', [data.ignored[split] / totals[split] for split in splits]))
    return '\n'.join([*lines, *(f'{name:{width}}' + ''.join(f'{share:>12.2%}' for share in shares)
                                for name, shares in rows)])

def bar(title: str) -> Callable[[Iterable, int], Iterable]:
    """Returns a progress bar in the form that the survey of datasets takes."""
    def shown(results: Iterable, total: int) -> Iterable:
        from rich.progress import track
        return track(results, title, total, transient=True, disable=not sys.stdout.isatty())
    return shown

"""Draws polygons and run lengths of labelme, CVAT, COCO, Label Studio, Supervisely or YOLO into masks.

The files tell which of these tools made them. The masks are 8-bit PNGs: classes from 0, and 255 for ignored pixels. A
pixel is of a shape if its centre lies in it; a later shape covers those before it. Nothing of the source is changed.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmseg_gpt.datasets.polygons import Converted

TOOLS = ('labelme', 'cvat', 'coco', 'label-studio', 'supervisely', 'yolo')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='DST gets masks/, images/ with links to the images, classes.txt with the number '
        'and name of each class, palette.csv where the tool says colours, and pairs.csv with each image and its '
        'mask. Compressed run lengths of COCO need pycocotools, which "mmseg_gpt[labels]" installs.')
    parser.add_argument('source', type=Path, metavar='SRC', help='a file of annotations, or a folder with such files')
    parser.add_argument('target', type=Path, metavar='DST', help='folder to write to; new, empty, or of an earlier '
                        'call with the same SRC')
    parser.add_argument('--images', type=Path, metavar='DIR', help='where the images are (default: SRC, with all '
                        'folders in it). An image of which there is only an address is found by its name')
    parser.add_argument('--classes', metavar='NAMES|FILE', help='classes in the order of their numbers: names with '
                        'commas between them, or a file. car=car+truck makes one class of two labels (default: a list '
                        'beside the annotations, as labels.txt, else the tool\'s own)')
    parser.add_argument('--unlabelled', choices=('background', 'ignored'), default='background', help='what pixels are '
                        'that no shape covers: a class, number 0 unless --classes says another, or 255 (default: '
                        '%(default)s)')
    parser.add_argument('--ignore-crowds', action='store_true', help='COCO: ignore the pixels of crowds (iscrowd), '
                        'which else are of their class')
    parser.add_argument('--line-width', type=int, default=10, metavar='PIXELS', help='width of lines (default: '
                        '%(default)s, as in labelme). Points are left out')
    parser.add_argument('--format', choices=TOOLS, help='whose files to take, where SRC has those of several tools')
    args = parser.parse_args()
    if args.line_width < 1:
        parser.error(f'--line-width must be at least 1, got {args.line_width}')
    if args.images and not args.images.is_dir():
        parser.error(f'--images {args.images} is not a folder')
    return args


def describe(converted: 'Converted') -> str:
    """Returns what was drawn, in lines for a terminal."""
    from mmseg_gpt.datasets.report import class_table
    from mmseg_gpt.resources import command_of
    survey, classes = converted.survey, converted.classes
    lines = [f'annotations: {converted.tool}', f'classes: {len(classes.names)}, from {classes.source}',
             *(f'note: {note}' for note in converted.notes)]
    if survey.counts.any():
        lines.append(str(class_table(survey)))
    lines += [f'ignored pixels: {survey.ignored_share or 0:.2%}',
              f'written: {survey.pairs} masks in {converted.folder / "masks"}, and {converted.folder / "classes.txt"}']
    if (converted.folder / 'images').is_dir():
        lines.append(f'train on them with: {command_of("adapt", converted.folder)}')
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    from rich.progress import track

    from mmseg_gpt.datasets.found.class_table import ClassTableError
    from mmseg_gpt.datasets.polygons import LabelsError, convert_labels
    from mmseg_gpt.files import FolderError
    try:
        converted = convert_labels(
            args.source, args.target, images=args.images, classes=args.classes, tool=args.format,
            unlabelled_ignored=args.unlabelled == 'ignored', ignore_crowds=args.ignore_crowds,
            line_width=args.line_width, progress=lambda drawings, total: track(drawings, 'masks', total))
    except (LabelsError, ClassTableError, FolderError) as error:
        raise SystemExit(str(error)) from error
    print(describe(converted))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command begins again')

"""Trains and measures a model on a folder of your own images: with masks, or with a class each."""

import argparse
import sys
from pathlib import Path

from arguments import configs_command, positive

EXAMPLE = """\
examples:
  %(prog)s data/mine                                     # finds images and masks, or class folders
  %(prog)s data/mine --classes road,building,sky --ignore 11 --vit dinov2-s --weights vits14.pth
  %(prog)s data/mine --dry-run                           # only look, and write the config

It says what it found and how it will train, with the reasons, before it starts. Originals are never touched; all that
is written goes into one folder, work_dirs/NAME_OF_FOLDER or --work-dir: config.py, an ordinary config for train, test
and predict; the checkpoint best_*.pth; report.md with a table of the classes, confusion.csv and .png, pictures of the
best and the worst images, and the three lines of Python that predict; metrics.json and result.json.

Interrupted, the same command goes on. The last line it prints is the score: "mIoU: 71.30", or "accuracy: 97.06"."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser.add_argument_group('the data'))
    add_model_arguments(parser.add_argument_group('the model'))
    add_training_arguments(parser.add_argument_group('the training; what is not given follows from data and machine'))
    parser.add_argument('--work-dir', metavar='DIR', help='where to write (default: work_dirs/NAME_OF_FOLDER)')
    parser.add_argument('--dry-run', action='store_true', help='only look: say what is found and planned, and write '
                        'the config')
    args = parser.parse_args()
    if not (args.folder or args.images):
        parser.error('give the FOLDER with images and masks, or --images and --masks')
    return args


def add_data_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options that say where images are and what their labels mean."""
    group.add_argument('folder', nargs='?', metavar='FOLDER', help='folder with images and masks, or with a folder for '
                       'each class; with or without splits')
    group.add_argument('--images', metavar='DIR', help='folder of the images, if FOLDER does not show it')
    group.add_argument('--masks', metavar='DIR_OR_PATTERN', help='folder of the masks; or a pattern of their names, '
                       'such as "*_labelTrainIds.png", where several fit one image')
    group.add_argument('--task', choices=('segmentation', 'classification'), help='default: what FOLDER shows')
    group.add_argument('--classes', metavar='FILE_OR_NAMES', help='names of the classes in the order of their numbers, '
                       'such as road,building,sky; or a file that names values or colours (classes.txt, labelmap.txt, '
                       '.csv, .json). vehicle=car+truck makes one class of two')
    group.add_argument('--ignore', nargs='+', action='extend', metavar='VALUE', help='values, colours (r,g,b) or names '
                       'of classes that are not learned and not measured; 255 and "void" are ignored anyway')
    group.add_argument('--val', type=float, metavar='SHARE', help='share of the training images that is kept for '
                       'validation, where FOLDER has no such split (default: 0.2)')
    group.add_argument('--bands', metavar='N,N,N', help='bands of the images to use, counted from 1, such as 3,2,1')
    group.add_argument('--scale', metavar='LOW:HIGH', help='values of the images that become black and white, such as '
                       '0:3000, where they are not of 8 bits')


def add_model_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options that say what is trained."""
    group.add_argument('--vit', default='dinov2-s', metavar='NAME', help='pretrained ViT, such as dinov2-s, dinov2, '
                       f'dinov3-s, mae; {configs_command()} lists them (default: %(default)s)')
    group.add_argument('--weights', metavar='FILE', help='file of its weights, or an address (default: in pretrained/, '
                       'or fetched from where they were published)')
    group.add_argument('--method', default='lora', metavar='NAME', help='how the ViT is adapted: lora, gpt, vpt-deep, '
                       'bias, linear (not at all), full, ... (default: %(default)s)')
    group.add_argument('--head', metavar='NAME', help='segmentation head: linear, linear_4, segmenter, setr_pup '
                       'or upernet (default: linear_4 on a CPU, setr_pup on a GPU)')
    group.add_argument('--loss', metavar='NAME', help='ce, or ce+dice, by which small and rare classes count more '
                       '(default: ce)')
    group.add_argument('--class-weights', choices=('auto', ), help='auto: pixels of rare classes count more, by median '
                       'frequency balancing')


def add_training_arguments(group: argparse._ArgumentGroup) -> None:
    """Adds the options that say how it is trained."""
    group.add_argument('--iterations', type=positive(int), metavar='N', help='steps of the training')
    group.add_argument('--batch', type=positive(int), metavar='N', help='images in a step')
    group.add_argument('--size', type=positive(int), metavar='PIXELS', help='short side to which images are scaled')
    group.add_argument('--crop', type=positive(int), metavar='PIXELS', help='side of the squares that are trained on')
    group.add_argument('--seed', type=int, default=0, metavar='N', help='seed of the split and the training '
                       '(default: %(default)s)')
    group.add_argument('--amp', nargs='?', const='bf16', choices=('bf16', 'fp16'), help='mixed precision; bf16 '
                       'without a value (fp16 needs a GPU)')
    group.add_argument('--workers', type=positive(int), metavar='N', help='processes that read masks (default: one for '
                       'each CPU)')


def main() -> None:
    args = parse_args()
    from mmseg_gpt.engine import errors_in_words  # after the arguments, as importing takes seconds
    from mmseg_gpt.own_data import OwnDataError, Request
    from mmseg_gpt.own_data.run import carry_out, work_dir_of
    from mmseg_gpt.own_data.summary import summary
    from mmseg_gpt.resources import this_command
    given = vars(args)
    dry_run = given.pop('dry_run')
    with errors_in_words():
        try:
            options = Request.of(**given)
            result = carry_out(options, lambda sentence: print(sentence, flush=True), this_command(), dry_run)
        except OwnDataError as error:
            raise SystemExit(str(error)) from error
    if result:
        print(summary(result, Path(work_dir_of(options))))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

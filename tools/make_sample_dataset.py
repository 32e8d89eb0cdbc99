"""Draws a sample dataset of the demos: scenes in ADE20K's layout, or --shapes in folders of classes.

A dataset that is there already is not drawn again.
"""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shapes', action='store_true', help='draw single shapes, for classification: train/CLASS/, '
                        'test/CLASS/ and, of other classes, pretrain/CLASS/. Numbers of images then count each class')
    parser.add_argument('--out', metavar='DIR', help='folder of the dataset (default: data/sample or data/shapes)')
    parser.add_argument('--images', type=int, metavar='N', help='training images (default: 1000 scenes, or 300 of each '
                        'shape)')
    parser.add_argument('--val-images', type=int, default=100, metavar='N', help='validation scenes, or test images of '
                        'each shape (default: %(default)s)')
    parser.add_argument('--pretrain-images', type=int, metavar='N', help='with --shapes: images of each class to '
                        'pretrain on (default: 400)')
    parser.add_argument('--size', type=int, metavar='N', help='side of an image in pixels (default: 96, or 32)')
    parser.add_argument('--seed', type=int, default=0, help='the same seed draws the same files (default: 0)')
    args = parser.parse_args()
    if args.pretrain_images is not None and not args.shapes:
        parser.error('--pretrain-images is for --shapes')
    if args.out is None:
        args.out = 'data/shapes' if args.shapes else 'data/sample'
    return args


def show(done: int, total: int) -> None:
    if done == total or done % 50 == 0:
        from mmseg_gpt.events import report
        report('progress', phase='draw', done=done, total=total)
        print(f'{done}/{total} images drawn', end='\n' if done == total else '\r', flush=True)


def draw(args: argparse.Namespace) -> str:
    """Draws the dataset and describes it."""
    from mmseg_gpt.lab.drawn import CLASSES, SHAPES, make_dataset, make_image_folder
    given = {name: value for name, value in (('training', args.images), ('size', args.size),
                                             ('pretraining', args.pretrain_images)) if value is not None}
    if args.shapes:
        drawn = make_image_folder(args.out, test=args.val_images, seed=args.seed, progress=show, **given)
        kinds = f'{len(SHAPES)} classes of shapes, and other classes to pretrain on'
    else:
        drawn = make_dataset(args.out, validation=args.val_images, seed=args.seed, progress=show, **given)
        kinds = f'scenes with {len(CLASSES)} classes'
    return f'{args.out}: {kinds}' + ('' if drawn else ' (there already, nothing drawn)')


def main() -> None:
    args = parse_args()
    try:
        print(draw(args))
    except (ValueError, OSError) as error:
        sys.exit(f'make_sample_dataset: {error}')


if __name__ == '__main__':
    main()

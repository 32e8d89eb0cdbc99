"""Draws the sample dataset of the demo, in ADE20K's layout. What is there already is not drawn again."""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/sample', help='folder of the dataset')
    parser.add_argument('--images', type=int, default=1000, help='number of training images')
    parser.add_argument('--val-images', type=int, default=100, help='number of validation images')
    parser.add_argument('--size', type=int, default=96, help='side of an image in pixels')
    parser.add_argument('--seed', type=int, default=0, help='the same seed draws the same files')
    return parser.parse_args()


def show(done: int, total: int) -> None:
    if done == total or done % 50 == 0:
        print(f'{done}/{total} scenes drawn', end='\n' if done == total else '\r', flush=True)


def main() -> None:
    args = parse_args()
    from mmseg_gpt.sample import CLASSES, make_dataset  # after the arguments, as importing takes seconds
    try:
        drawn = make_dataset(args.out, args.images, args.val_images, args.size, args.seed, show)
    except (ValueError, OSError) as error:
        sys.exit(f'make_sample_dataset: {error}')
    print(f'{args.out}: {args.images} training and {args.val_images} validation images of {args.size}x{args.size} '
          f'pixels, {len(CLASSES)} classes' + ('' if drawn else ' (there already, nothing drawn)'))


if __name__ == '__main__':
    main()

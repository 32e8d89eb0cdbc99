"""Draws where blocks of a trained model attend, with and without its prompts and temperatures (Figure 5 of the paper).

Maps are drawn over the image as the model sees it: after the test pipeline of the config, and of a segmentor that goes
over images in windows, one window in the middle. Their unit is uniform attention: 2 is twice as much as each token
would get if all got the same. A second figure, FILE_summary, shows by block and head how far patches attend, the
entropy of their attention, and its share on prompts.
"""

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_config_arguments, add_figure_arguments, check_device

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mmseg_gpt.analysis.attention_figures import Column, MapRow
    from mmseg_gpt.apis import ServedTask

QUERY = r'cls|prompts|to-prompts|click|prompt:[1-9]\d*|\d+,\d+'
EXAMPLE = """\
example:
  %(prog)s configs/setr_pup_gpt_mae_ade20k.py iter_160000.pth street.jpg --query cls prompt:1 --out attention.png

  "With prompts" is the same model with all temperatures at 1, not one that was trained without them; add such a one
  with --also. Without prompts and temperatures a frozen ViT is the pretrained one. CLS has attention in the last block
  of a segmentor too, where nothing reads it.

Exit code: 0; 1 where a checkpoint or an image cannot be used; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of this project, whole or with adapters only')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files: maps are those of the first, the '
                        'summaries are means over all')
    parser.add_argument('--query', nargs='+', type=query, default=['cls'], metavar='QUERY', dest='queries',
                        help='what attends: cls; prompt:K, the K-th prompt; prompts, their mean; X,Y, the patch with '
                        'this pixel of the picture that is drawn; click, which opens a window to choose it; or '
                        'to-prompts, the share of the attention of each patch that goes to prompts (default: cls)')
    parser.add_argument('--blocks', nargs='+', type=positive, metavar='N', help='blocks, counted from 1 (default: '
                        'early, middle and late: 3 7 12 of 12)')
    parser.add_argument('--heads', nargs='+', type=head, default=['mean'], metavar='HEAD', help='mean, all, or numbers '
                        'from 1 (default: mean)')
    parser.add_argument('--also', nargs=3, action='append', default=[], metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
                        help='a further model, as a further column; give --also again for each')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda where there is one')
    add_figure_arguments(parser, 'attention.png')
    parser.set_defaults(work_dir=None, launcher='none')  # what read_config looks for
    args = parser.parse_args()
    for file in [args.checkpoint, *args.images, *(checkpoint for _, _, checkpoint in args.also)]:
        if not Path(file).is_file():
            parser.error(f'there is no file {file}')
    return args


def query(text: str) -> str:
    """A query as it was typed.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(QUERY, text):
        raise argparse.ArgumentTypeError(f'{text} is none of cls, prompt:K, prompts, X,Y, click, to-prompts')
    return text


def positive(text: str) -> int:
    """A whole number from 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no number from 1')
    return int(text)


def head(text: str) -> str | int:
    return text if text in ('mean', 'all') else positive(text)


def see(task: 'ServedTask', args: argparse.Namespace) -> tuple['np.ndarray', list['Tensor']]:
    """The picture of the first image, and all images as the model takes them."""
    task.model.to(args.device)
    views = [task.view(image) for image in args.images]
    return views[0][0], [inputs for _, inputs in views]


def choose_blocks(args: argparse.Namespace, depth: int) -> list[int]:
    """The blocks of the maps, from 0.

    Raises:
        ValueError: the model does not run one of them.
    """
    from mmseg_gpt.analysis.attention import early_middle_late
    if absent := [block for block in args.blocks or () if block > depth]:
        raise ValueError(f'--blocks {absent[0]}: the model runs {depth} blocks, counted from 1')
    return [block - 1 for block in dict.fromkeys(args.blocks)] if args.blocks else early_middle_late(depth)


def choose_heads(args: argparse.Namespace, number: int) -> list[int | None]:
    """The heads of the maps, from 0; None is the mean of all."""
    heads = [each for name in args.heads for each in (range(1, number + 1) if name == 'all' else [name])]
    return [None if each == 'mean' else each - 1 for each in dict.fromkeys(heads)]


def look(args: argparse.Namespace) -> tuple['np.ndarray', list['Column'], list['MapRow']]:
    """Runs all models on the images.

    Returns:
        tuple: The picture (H, W, 3), and the columns and rows of the figure.

    Raises:
        ValueError: a query, block or head is not there, or another model sees another picture.
    """
    from mmseg_gpt.analysis.attention import study, switched_off, variants
    from mmseg_gpt.analysis.attention_figures import Column, MapRow, ask_for_point
    from mmseg_gpt.apis import load_task
    from mmseg_gpt.engine import read_config
    from mmseg_gpt.engine.config import find_config
    task = load_task(Path(args.config).stem, read_config(args), args.checkpoint, frozen=False)
    picture, images = see(task, args)
    queries = ['{},{}'.format(*ask_for_point(picture)) if each == 'click' else each for each in args.queries]
    blocks = choose_blocks(args, max(task.vit.out_indices) + 1)
    heads = choose_heads(args, task.vit.arch['num_heads'])
    columns = []
    for name, off in variants(task.vit).items():
        with switched_off(task.vit, **off):
            columns.append(Column(name, study(task.vit, images, queries, blocks), task.vit.patch_embed.patch_size))
    for name, config, checkpoint in args.also:
        task = load_task(name, find_config(config), checkpoint, frozen=False)
        other, images = see(task, args)
        if other.shape != picture.shape:
            raise ValueError(f'--also {name}: this model sees a picture of {other.shape[1]} x {other.shape[0]} pixels, '
                             f'the first one {picture.shape[1]} x {picture.shape[0]}: they cannot be laid beside each '
                             'other. Give it a config with the same test pipeline')
        choose_blocks(args, max(task.vit.out_indices) + 1)
        columns.append(Column(name, study(task.vit, images, queries, blocks), task.vit.patch_embed.patch_size))
    return picture, columns, [MapRow(query, block, head) for query in queries for block in blocks for head in heads]


def write(args: argparse.Namespace, picture: 'np.ndarray', columns: list['Column'], rows: list['MapRow']) -> list[Path]:
    """Writes both figures and their numbers."""
    from mmseg_gpt.analysis.attention_figures import draw_maps, draw_summaries, map_numbers, summary_numbers
    from mmseg_gpt.analysis.figures import write_figure, write_numbers
    if not args.blocks:  # of the usual ones, those in which there is what is asked for
        rows = [row for row in rows if any(row.map_in(column.study) is not None for column in columns)] or rows
    drawn = [column for column in columns if any(row.map_in(column.study) is not None for row in rows)]
    maps = draw_maps(picture, drawn or columns, rows, f'Attention over {Path(args.images[0]).name}')
    facts = dict(command=shlex.join(sys.argv), config=args.config, checkpoint=args.checkpoint, images=args.images)
    lines, values = map_numbers(columns, rows)
    summary = args.out.with_stem(f'{args.out.stem}_summary')
    return [*write_figure(maps, args.out), *write_numbers(lines, args.out, **facts, maps=values),
            *write_figure(draw_summaries(columns), summary),
            *write_numbers(summary_numbers(columns), summary, **facts)]


def main() -> None:
    args = parse_args()
    import torch  # after the arguments, as importing takes seconds
    from mmengine.logging import MMLogger

    from mmseg_gpt.checks.before import refuse
    from mmseg_gpt.datasets import check_headers
    from mmseg_gpt.engine import errors_in_words
    check_device(args.device)
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    MMLogger.get_instance('plot_attention', log_level='WARNING')
    refuse([], [problem for image in args.images for problem in check_headers(image)])
    with errors_in_words():
        try:
            written = write(args, *look(args))
        except ValueError as error:
            raise SystemExit(str(error)) from error
    print(f'written: {", ".join(map(str, written))}')


if __name__ == '__main__':
    main()

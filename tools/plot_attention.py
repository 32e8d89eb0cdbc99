"""Draws where blocks of a trained model attend, with and without its prompts and temperatures (Figure 5 of the paper).

Maps are drawn over the image as the model sees it, after the test pipeline of the config; for a segmentor that slides
windows over images, this is one window in the middle. Their unit is uniform attention: 2 is twice as much as each token
would get if all got the same. A second figure, FILE_summary, shows by block and head how far patches attend, the
entropy of their attention, and its share on prompts.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_config_arguments, add_figure_arguments, check_device, positive

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mmseg_gpt.analysis.attention_figures import Column, MapRow
    from mmseg_gpt.apis import ServedTask

QUERY = r'cls|prompts|to-prompts|click|prompt:[1-9]\d*|\d+,\d+'
EXAMPLE = """\
example:
  %(prog)s setr_pup_gpt_mae_ade20k iter_160000.pth street.jpg --query cls prompt:1 --out attention.png

  "With prompts" is the same model with all temperatures at 1, not one that was trained without them; add such a model
  with --also. Without prompts and temperatures a frozen ViT is the pretrained one. CLS has attention in the last block
  of a segmentor too, although nothing reads its output.

Exit code: 0; 1 if a checkpoint or an image cannot be used; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of this project, whole or with adapters only')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files: maps are those of the first, the '
                        'summaries are means over all')
    parser.add_argument('--query', nargs='+', type=query, default=['cls'], metavar='QUERY', dest='queries',
                        help='the tokens that attend: cls; prompt:K, the K-th prompt; prompts, their mean; X,Y, the '
                        'patch with this pixel of the drawn picture; click, to choose it in a window; or to-prompts, '
                        'the share of the attention of each patch that goes to prompts (default: cls)')
    parser.add_argument('--blocks', nargs='+', type=positive(int), metavar='N', help='blocks, counted from 1 (default: '
                        'early, middle and late: 3 7 12 of 12)')
    parser.add_argument('--heads', nargs='+', type=head, default=['mean'], metavar='HEAD', help='mean, all, or numbers '
                        'from 1 (default: mean)')
    parser.add_argument('--also', nargs=3, action='append', default=[], metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
                        help='a further model, as a further column; give --also again for each')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is a GPU')
    add_figure_arguments(parser, 'attention.png')
    args = parser.parse_args()
    for file in [args.checkpoint, *args.images, *(checkpoint for _, _, checkpoint in args.also)]:
        if not Path(file).is_file():
            parser.error(f'there is no file {file}')
    return args


def query(text: str) -> str:
    """Returns a query as it was typed.

    Raises:
        argparse.ArgumentTypeError: it is not a query.
    """
    if not re.fullmatch(QUERY, text):
        raise argparse.ArgumentTypeError(f'{text} is none of cls, prompt:K, prompts, X,Y, click, to-prompts')
    return text


def head(text: str) -> str | int:
    """Reads 'mean', 'all' or the number of a head, counted from 1."""
    return text if text in ('mean', 'all') else positive(int)(text)


def view_images(task: 'ServedTask', args: argparse.Namespace) -> tuple['np.ndarray', list['Tensor']]:
    """Returns the picture of the first image, and all images as the inputs of the backbone."""
    task.model.to(args.device)
    views = [task.view(image) for image in args.images]
    return views[0][0], [inputs for _, inputs in views]


def choose_blocks(args: argparse.Namespace, depth: int) -> list[int]:
    """Returns the blocks of the maps, counted from 0.

    Raises:
        ValueError: the model does not run one of them.
    """
    from mmseg_gpt.analysis.attention import early_middle_late
    if absent := [block for block in args.blocks or () if block > depth]:
        raise ValueError(f'--blocks {absent[0]}: the model runs {depth} blocks, counted from 1')
    return [block - 1 for block in dict.fromkeys(args.blocks)] if args.blocks else early_middle_late(depth)


def choose_heads(args: argparse.Namespace, number: int) -> list[int | None]:
    """Returns the heads of the maps, counted from 0; None is the mean of all."""
    heads = [each for name in args.heads for each in (range(1, number + 1) if name == 'all' else [name])]
    return [None if each == 'mean' else each - 1 for each in dict.fromkeys(heads)]


def study_models(args: argparse.Namespace) -> tuple['np.ndarray', list['Column'], list['MapRow']]:
    """Runs all models on the images.

    Returns:
        tuple: The picture (H, W, 3), and the columns and rows of the figure.

    Raises:
        ValueError: there is no such query, block or head, or another model sees another picture.
    """
    from mmseg_gpt.analysis.attention import study, switched_off, variants
    from mmseg_gpt.analysis.attention_figures import Column, MapRow, ask_for_point
    from mmseg_gpt.apis import load_task
    from mmseg_gpt.engine import read_config
    from mmseg_gpt.engine.config import find_config
    cfg = read_config(args.config, args.cfg_options, launcher='none')
    task = load_task(Path(args.config).stem, cfg, args.checkpoint, frozen=False)
    picture, images = view_images(task, args)
    queries = ['{},{}'.format(*ask_for_point(picture)) if each == 'click' else each for each in args.queries]
    blocks = choose_blocks(args, max(task.vit.out_indices) + 1)
    heads = choose_heads(args, task.vit.arch['num_heads'])
    columns = []
    for name, off in variants(task.vit).items():
        with switched_off(task.vit, **off):
            columns.append(Column(name, study(task.vit, images, queries, blocks), task.vit.patch_embed.patch_size))
    for name, config, checkpoint in args.also:
        task = load_task(name, find_config(config), checkpoint, frozen=False)
        other, images = view_images(task, args)
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
    from mmseg_gpt.resources import this_command
    if not args.blocks:  # keep those of the usual blocks that have the queries
        rows = [row for row in rows if any(row.map_in(column.study) is not None for column in columns)] or rows
    drawn = [column for column in columns if any(row.map_in(column.study) is not None for row in rows)]
    maps = draw_maps(picture, drawn or columns, rows, f'Attention over {Path(args.images[0]).name}')
    facts = dict(command=this_command(), config=args.config, checkpoint=args.checkpoint, images=args.images)
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
            written = write(args, *study_models(args))
        except ValueError as error:
            raise SystemExit(str(error)) from error
    print(f'written: {", ".join(map(str, written))}')


if __name__ == '__main__':
    main()

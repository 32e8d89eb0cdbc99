"""Measures the cost of a training step and of an evaluated image for mmsegmentation's own model, the paper's, and ours.

Before anything is measured, the paper's formulation and ours are compared in float64: loss, all gradients, statistics
and predictions. Variants are mmseg-full, paper, ours, ours-cp (gradient checkpointing), ours-half (the frozen
ViT in bfloat16, as --amp keeps it) and ours-half-fused (that with torch's fused attention on a CPU too), each also with
-bf16 (autocast) or -compiled or both; the last two only with -bf16.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import check_given

if TYPE_CHECKING:
    from mmseg_gpt.lab.benchmark.run import Options

CONFIG = Path(__file__).resolve().parent.parent / 'configs/setr_pup_gpt_mae_ade20k.py'
VARIANTS = ('mmseg-full', 'paper', 'ours', 'ours-bf16', 'ours-compiled')
WHAT = ('train', 'eval', 'costs', 'floor', 'kernels')
# The compiled variant is left out, because compiling takes longer than everything else together.
SMALL = dict(
    variants=list(VARIANTS[:-1]), rounds=2, warmup=1, arch='tiny', image=64, classes=7, prompts=5, channels=16, batch=2)


def names(text: str) -> list[str]:
    return text.split(',')


def axis(text: str) -> tuple[str, list[int]]:
    name, _, values = text.partition('=')
    return name, [int(value) for value in names(values)] if values else []


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', choices=('full', 'small'), default='full', help='small: run everything once on '
                        'tiny models, to see that it works')
    parser.add_argument('--variants', type=names, default=list(VARIANTS), metavar='NAMES',
                        help=f'variants to compare (default: {",".join(VARIANTS)})')
    parser.add_argument('--against', default='paper', metavar='VARIANT', help='variant with which the others are '
                        'compared (default: %(default)s)')
    parser.add_argument('--what', type=names, default=list(WHAT), help=f'any of {",".join(WHAT)}; costs are memory, '
                        'FLOPs and checkpoint sizes, which need no clock (default: all)')
    for flag, text in {'tta': 'evaluate an image at all scales and flips too',
                       'rss': 'measure the peak memory of a new process for each variant, as the system counts it',
                       'largest-batch': 'find the largest batch that fits (CUDA)'}.items():
        parser.add_argument(f'--{flag}', action='append_const', const=flag, dest='more', default=[], help=text)
    parser.add_argument('--only', type=names, help=argparse.SUPPRESS)  # for the processes that this tool starts
    parser.add_argument('--arch', choices=('tiny', 'small', 'base', 'large', 'huge'), default='base')
    parser.add_argument('--depth', type=int, help='blocks (default: those of --arch)')
    parser.add_argument('--image', type=int, default=512, help='side in pixels (default: 512)')
    parser.add_argument('--classes', type=int, default=150)
    parser.add_argument('--prompts', type=int, default=100)
    parser.add_argument('--channels', type=int, default=256, help='width of the heads (default: 256)')
    parser.add_argument('--batch', type=int, help='training images (default: 1; on CUDA 16, or as many as '
                        'its memory has room for)')
    parser.add_argument('--eval-batch', type=int, default=1, help='images evaluated at once (default: 1)')
    parser.add_argument('--device', help='cpu or cuda (default: cuda if there is a GPU)')
    parser.add_argument('--threads', type=int, help='number of PyTorch\'s CPU threads (default: its own choice)')
    parser.add_argument('--rounds', type=int, default=10, help='measurements of each time (default: 10)')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before these (default: 2)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--allocators', type=names, help='default,no-fault: time each in a new process '
                        '(the default on a CPU with glibc); this: time in this process as it is')
    parser.add_argument('--sweep', metavar='PREFIX', help='instead, measure costs by size, of --variants (then paper,'
                        'ours by default), and write PREFIX.json and PREFIX.png')
    parser.add_argument('--axes', type=axis, nargs='+', metavar='AXIS[=VALUES]', help='with --sweep, such as '
                        'image=256,512 depth=3,12 (default: all four)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='where to write all numbers')
    preset, _ = parser.parse_known_args()
    if preset.preset == 'small':
        parser.set_defaults(**SMALL)
    if preset.sweep:
        parser.set_defaults(variants=['paper', 'ours'])
    args = parser.parse_args()
    check_given(args, parser, 'sweep', 'axes')
    if args.sweep and args.more:
        parser.error(f'--sweep measures costs by size alone: leave out --{args.more[0]}')
    return args


def read_options(args: argparse.Namespace) -> 'Options':
    """Checks what argparse cannot, and fills in the defaults that depend on the machine.

    Raises:
        SystemExit: an option has an impossible value.
    """
    import torch

    from mmseg_gpt.lab.benchmark.cuda import usual_batch
    from mmseg_gpt.lab.benchmark.processes import ALLOCATORS
    from mmseg_gpt.lab.benchmark.run import Options
    from mmseg_gpt.lab.benchmark.variants import Sizes, parse_variant
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    on_gpu = device.type == 'cuda'
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit('--device cuda: no GPU is visible to PyTorch')
    batch = args.batch or (usual_batch(torch.cuda.get_device_properties(device).total_memory) if on_gpu else 1)
    sizes = Sizes(args.arch, args.depth, args.image, args.classes, args.prompts, args.channels, batch)
    try:
        _ = sizes.vit, [parse_variant(name) for name in (*args.variants, args.against)]
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if unknown := set(args.what) - set(WHAT):
        raise SystemExit(f'--what: {", ".join(unknown)} is none of {", ".join(WHAT)}')
    if unknown := set(args.allocators or []) - {*ALLOCATORS, 'this'}:
        raise SystemExit(f'--allocators: {", ".join(unknown)} is none of {", ".join(ALLOCATORS)}, this')
    if 'largest-batch' in args.more and not on_gpu:
        raise SystemExit('--largest-batch needs a GPU, where too large a batch does no harm')
    return Options(
        str(CONFIG), sizes, args.variants, set(args.only or [*args.what, *args.more]), device, args.rounds, args.warmup,
        args.seed, args.against, args.allocators or (['this'] if on_gpu else list(ALLOCATORS)), args.eval_batch,
        args.preset == 'small', not args.only, [os.path.relpath(__file__), *sys.argv[1:]])


def read_axes(args: argparse.Namespace) -> dict[str, list[int]]:
    """Returns the values of each axis of the sweep.

    Raises:
        SystemExit: there is no such axis.
    """
    from mmseg_gpt.lab.benchmark.sweep import AXES
    wanted = dict(args.axes or {name: [] for name in AXES})
    if unknown := wanted.keys() - AXES.keys():
        raise SystemExit(f'--axes: {", ".join(unknown)} is none of {", ".join(AXES)}')
    return {name: values or list(AXES[name]) for name, values in wanted.items()}


def main() -> None:
    args = parse_args()
    import torch  # after the arguments, as importing takes seconds

    import mmseg_gpt  # noqa: F401  must come before mmseg
    from mmseg_gpt.lab.benchmark.parity import ParityError
    from mmseg_gpt.lab.benchmark.run import run, run_sweep, write_json
    from mmseg_gpt.lab.benchmark.tables import tables
    options = read_options(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        if args.sweep:
            results = run_sweep(options, read_axes(args), args.sweep)
            print(f'written: {args.sweep}.json, {args.sweep}.png')
        else:
            results = run(options, keep=partial(write_json, path=args.json) if args.json else lambda results: None)
            print(tables(results))
    except ParityError as error:
        raise SystemExit(str(error)) from error
    if args.json:
        write_json(results, args.json)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')

"""Counts the bytes of tasks that share one ViT in a pool, or measures how fast the pool answers many tasks.

The weights are random. The ViT and adapters for it are written to a temporary folder and loaded from there, as a
user's files are. Bytes are counted, and so are the same on every machine. With --tasks, one image for each of some
tasks of one config is answered task by task and with one pass of the ViT for all, in turn in one process.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import check_device, check_given, positive

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.lab.benchmark.serving import Growth


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='examples:\n  %(prog)s setr_pup_gpt_mae_ade20k cls_gpt_mae_cub cls_gpt_mae_cars\n'
        '  %(prog)s cls_gpt_mae_cub --tasks 2 8 25 --image 224 512')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='configs that use one pretrained ViT: files, or '
                        'names; they are added in this order')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='type of the ViT in memory '
                        '(default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers there')
    speed = parser.add_argument_group('speed')
    speed.add_argument('--tasks', nargs='+', type=positive(int), metavar='N', help='measure the speed with so many '
                       'tasks of the one config')
    speed.add_argument('--image', nargs='+', type=positive(int), default=[224], metavar='SIDE', help='sides of the '
                       'images in pixels (default: 224)')
    speed.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is a GPU')
    speed.add_argument('--threads', type=positive(int), help="number of PyTorch's CPU threads (default: its own "
                       'choice)')
    speed.add_argument('--rounds', type=positive(int), default=5, help='measurements of each time (default: 5)')
    speed.add_argument('--warmup', type=int, default=1, help='rounds before these (default: 1)')
    speed.add_argument('--cpu-time', action='store_true', help='count the seconds that the CPU works for this process, '
                       'for a machine that others use too; it takes --threads 1')
    speed.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    check_given(args, parser, 'tasks', 'image', 'device', 'threads', 'rounds', 'warmup', 'cpu_time', 'seed')
    if args.tasks and len(args.configs) > 1:
        parser.error('--tasks measures the tasks of one config')
    if args.warmup < 0:
        parser.error(f'--warmup must be at least 0, got {args.warmup}')
    if args.cpu_time and (args.threads != 1 or args.device != 'cpu'):
        parser.error('--cpu-time needs --threads 1 and --device cpu')
    names = [Path(config).stem for config in args.configs]
    if len(set(names)) < len(names):
        parser.error('a config is named twice')
    args.configs = dict(zip(names, args.configs))
    return args


def mebibytes(size: int) -> str:
    return f'{size / 2**20:,.2f}'


def table(rows: list['Growth']) -> str:
    """Writes the growth as a table, in MiB."""
    from prettytable import PrettyTable
    lines = PrettyTable(['tasks', 'added last', 'MiB added', 'MiB pool', 'MiB separate', 'times'], align='r')
    lines.align['added last'] = 'l'
    lines.add_rows([[i, row.task, *map(mebibytes, row[1:]), f'{row.separate / row.pool:.2f}']
                    for i, row in enumerate(rows, 1)])
    return str(lines)


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.engine.config import find_config
    MMLogger.get_instance('serving', log_level='WARNING')
    configs = {name: find_config(config) for name, config in args.configs.items()}
    results = speed(args, configs) if args.tasks else growth(args, configs)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + '\n')
        print(f'written: {args.json}')


def growth(args: argparse.Namespace, configs: dict[str, 'Config']) -> list[dict]:
    """Counts the bytes, and prints them."""
    import torch
    from rich.progress import track

    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.lab.benchmark.serving import measure_growth
    from mmseg_gpt.settings import look_up
    vits = {str(look_up(cfg, 'model.backbone.init_cfg.checkpoint')): name for name, cfg in configs.items()}
    if len(vits) > 1:
        raise SystemExit('these have different ViTs, which no pool can share: '
                         + ', '.join(f'{name} has {vit}' for vit, name in vits.items()))
    with tempfile.TemporaryDirectory() as folder, errors_in_words():
        steps = measure_growth(configs, Path(folder), getattr(torch, args.dtype))
        try:
            rows = list(track(steps, 'tasks', len(configs)))
        except ValueError as error:  # a config without a frozen ViT
            raise SystemExit(str(error)) from error
    print(table(rows))
    return [row._asdict() for row in rows]


def speed(args: argparse.Namespace, configs: dict[str, 'Config']) -> dict:
    """Measures the speed, and prints it."""
    import torch

    from mmseg_gpt.apis import AdapterPool
    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.lab.benchmark.serving import measure_speed, speed_table
    check_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    (name, config), = configs.items()
    with errors_in_words():
        results = measure_speed(config, args.image, args.tasks, AdapterPool(args.device, getattr(torch, args.dtype)),
                                args.rounds, args.warmup, args.seed, args.cpu_time)
    print(speed_table(name, results))
    return dict(command=[os.path.relpath(__file__), *sys.argv[1:]], **results)


if __name__ == '__main__':
    main()

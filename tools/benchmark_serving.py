"""Counts the bytes of tasks that share one ViT in a pool, and those of as many separate models.

The weights are random. The ViT and adapters for it are written to a temporary folder and loaded from there, as a
user's files are. Nothing is timed, so the numbers are the same on every machine.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmseg_gpt.lab.benchmark.serving import Growth


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example:\n  %(prog)s setr_pup_gpt_mae_ade20k cls_gpt_mae_cub cls_gpt_mae_cars')
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='configs that use one pretrained ViT: files, or '
                        'names; they are added in this order')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='type of the ViT in memory '
                        '(default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the bytes there')
    args = parser.parse_args()
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
    import torch  # after the arguments, as importing takes seconds
    from mmengine.logging import MMLogger
    from rich.progress import track

    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.engine.config import find_config
    from mmseg_gpt.lab.benchmark.serving import measure_growth
    from mmseg_gpt.settings import look_up
    MMLogger.get_instance('serving', log_level='WARNING')
    configs = {name: find_config(config) for name, config in args.configs.items()}
    vits = {str(look_up(cfg, 'model.backbone.init_cfg.checkpoint')): name for name, cfg in configs.items()}
    if len(vits) > 1:
        raise SystemExit('these have different ViTs, which no pool can share: '
                         + ', '.join(f'{name} has {vit}' for vit, name in vits.items()))
    with tempfile.TemporaryDirectory() as folder, errors_in_words():
        growth = measure_growth(configs, Path(folder), getattr(torch, args.dtype))
        try:
            rows = list(track(growth, 'tasks', len(configs)))
        except ValueError as error:  # a config without a frozen ViT
            raise SystemExit(str(error)) from error
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()

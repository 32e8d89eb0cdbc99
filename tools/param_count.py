"""Counts the parameters of each config, and of all tasks together with the backbone they share, as Tables 1 and 2 do.

TOTAL PARAMS are those of one backbone and everything that is trained for the tasks, divided by those of the backbone;
with full fine-tuning each task has its own backbone. Position embeddings are not counted, because in MAE and MoCo v3
they are a fixed sine-cosine table; --json has both counts. Neither data nor a pretrained file is needed.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmseg_gpt.lab.suite.parameters import Parameters

TABLES = {'1': 'fgvc', '2': 'vtab'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files, or names such as '
                        'cls_gpt_mae_cub')
    parser.add_argument('--table', choices=[*TABLES, *TABLES.values()], help='count the configs of Table 1 (fgvc) or '
                        'Table 2 (vtab), and show the TOTAL PARAMS that the paper prints')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers there')
    args = parser.parse_args()
    if bool(args.configs) == bool(args.table):
        parser.error('give configs, or --table')
    if len(set(args.configs)) < len(args.configs):
        parser.error('a config is given twice')
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f'--json {args.json}: give a file in a folder that exists')
    args.table = TABLES.get(args.table, args.table)
    return args


def count(configs: list[str]) -> dict[str, tuple[str, 'Parameters']]:
    """Returns the pretrained file and the parameters of each config.

    Raises:
        SystemExit: there is no such config, or its backbone is not one of ours.
    """
    from mmseg_gpt.engine.config import find_config
    from mmseg_gpt.lab.suite import count_parameters
    from mmseg_gpt.settings import look_up
    counted = {}
    for config in configs:
        cfg = find_config(config)
        try:
            counted[config] = str(look_up(cfg, 'model.backbone.init_cfg.checkpoint')), count_parameters(cfg)
        except ValueError as error:
            raise SystemExit(str(error)) from error
    return counted


def groups(args: argparse.Namespace, counted: dict[str, tuple[str, 'Parameters']]) -> dict[str, list[str]]:
    """Groups configs that share a backbone: those of a row of the table; else those with the same pretrained file."""
    if not args.table:
        files = dict.fromkeys(file for file, _ in counted.values())
        return {file: [config for config, (own, _) in counted.items() if own == file] for file in files}
    from mmseg_gpt.lab.suite import PLANS
    entries = PLANS[args.table]().entries
    rows = dict.fromkeys(entry.row for entry in entries)
    return {' '.join(row): [entry.run.config for entry in entries if entry.row == row] for row in rows}


def main() -> None:
    args = parse_args()
    from prettytable import PrettyTable  # after the arguments, as importing takes seconds

    from mmseg_gpt.lab.suite import PLANS, total_params
    from mmseg_gpt.lab.suite.printed import TOTAL, printed
    counted = count(args.configs or [entry.run.config for entry in PLANS[args.table]().entries])
    columns = ('backbone', 'position', 'prompts', 'gates', 'adapters', 'heads', 'trained', 'whole')
    table = PrettyTable(['config', *columns], align='r')
    table.align['config'] = 'l'
    for config, (_, parameters) in counted.items():
        table.add_row([config, *(f'{getattr(parameters, column):,}' for column in columns)])
    print(f'{table}\ngates: with temperatures. adapters: updates of the ViT\'s layers, such as LoRA\'s. position: the '
          'position embedding, which is not in "backbone"\n')
    paper = {' '.join(row): number for (row, column), number in printed(args.table or '').items() if column == TOTAL}
    totals = []
    for name, configs in groups(args, counted).items():
        tasks = [counted[config][1] for config in configs]
        both = total_params(tasks), total_params(tasks, position=True)
        totals.append(dict(name=name, tasks=len(tasks), total_params=both[0], with_position=both[1],
                           paper=paper.get(name)))
        in_paper = f', the paper {paper[name]:.2f}x' if name in paper else ''
        number = '1 task' if len(tasks) == 1 else f'{len(tasks)} tasks'
        print(f'{TOTAL} of {number} on {name}: {both[0]:.2f}x ({both[0]:.5f}; {both[1]:.5f} with position '
              f'embeddings{in_paper})')
    if args.table == 'vtab':
        print('The paper repeats what VPT\'s authors reported for VPT, with numbers of prompts of their own.')
    if args.json:
        args.json.write_text(json.dumps(dict(
            configs={config: dict(p._asdict(), whole=p.whole) for config, (_, p) in counted.items()},
            totals=totals), indent=1) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()

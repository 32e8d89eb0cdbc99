"""Runs a whole table or figure of the paper, and writes it as the paper prints it, with the paper's numbers.

    fgvc     Table 1: VPT-shallow, VPT-deep and Gated Prompt Tuning, MAE and MoCo v3, 5 tasks
    vtab     Table 2: the same on the 19 tasks of VTAB-1K
    ade20k   Table 3: segmentation, single-scale and multi-scale
    table4   hard gates
    table6   segmentation with 24 prompts
    table7   24, 48 and 96 prompts on FGVC
    table8   ViT-L (MAE) and ViT-S (MoCo v3)
    figure1  prompts that enter at block 1, 2, ... 12
    figure6  VPT-shallow, with gates, and with temperatures too, on all 25 datasets
    figure7  1 to 96 prompts on Stanford Cars
    figure8  figure 6 by dataset

In fgvc and vtab, --methods can name any method (mmseg_gpt/recipes/methods.py), which then has rows of its own.

A finished run is not run again and an interrupted one goes on where it stopped, so the same command continues a
suite. A table of what is finished is written whenever it ends. --jobs carries out several runs at once; several
processes with the same --out share them, one for each GPU:

    for gpu in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$gpu python tools/benchmark_suite.py vtab & done; wait
"""

import argparse
import signal
import sys
from pathlib import Path

from arguments import add_settings, add_suite_arguments, how_to_work

TABLES = ('fgvc', 'vtab', 'ade20k', 'table4', 'table6', 'table7', 'table8', 'figure1', 'figure6', 'figure7',
          'figure8')
ALIASES = dict(table1='fgvc', table2='vtab', table3='ade20k')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=(*TABLES, *ALIASES), metavar='TABLE', help=' | '.join(TABLES))
    for what, example in (('vits', 'mae'), ('methods', 'gpt'), ('tasks', 'cub, or a group of VTAB-1K: natural')):
        parser.add_argument(f'--{what}', nargs='+', default=(), metavar='NAME', help=f'run only these, such as '
                            f'{example}; the table has room for all')
    parser.add_argument('--authors-protocol', action='store_true', help='classification: as the authors\' code, see '
                        'mmseg-gpt train --help')
    add_settings(parser)
    add_suite_arguments(parser, 'work_dirs/suite; tables that have the same runs share them')
    args = parser.parse_args()
    args.table = ALIASES.get(args.table, args.table)
    args.seeds = list(dict.fromkeys(args.seeds))
    return args


def main() -> None:
    args = parse_args()
    from mmseg_gpt.lab import suite  # after the arguments, as importing takes seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the runs that are going on are saved
    out, settings = args.out or Path('work_dirs/suite'), args.cfg_options or ()
    options, suffix = (['--authors-protocol'], '_authors') if args.authors_protocol else ([], '')
    table = suite.with_options(suite.plan(args.table, args.methods), settings, options, suffix)
    try:
        entries = suite.select(table.entries, args.vits, args.methods, args.tasks)
    except ValueError as error:
        sys.exit(str(error))
    home = out / 'runs'

    def write() -> str:
        records = suite.outcomes(suite.runs_of(table.entries, args.seeds), home)  # what others have run counts as well
        return suite.write_table(args.table, table, records, args.seeds, out / f'{args.table}{suffix}',
                                 [*options, *settings])

    suite.work(suite.runs_of(entries, args.seeds), home, write, **how_to_work(args))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:  # before the first run; a run that is stopped has been saved
        sys.exit('\nstopped')

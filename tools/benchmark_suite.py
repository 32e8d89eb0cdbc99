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
    all      all of these

In fgvc and vtab, --methods can name any method (mmseg_gpt/recipes/methods.py), which then has rows of its own.

A finished run is not run again and an interrupted one goes on where it stopped, so the same command continues a
suite. A table of what is finished is written whenever it ends. --jobs carries out several runs at once, spread over
the GPUs that are visible; several processes with the same --out, on one machine or several, share them.

On a cluster, each run is a job; and --estimate says before that how long all will take:

    mmseg-gpt suite all --seeds 0 1 2 --estimate --benchmark MEASURED.json
    mmseg-gpt suite all --seeds 0 1 2 --on slurm --slurm time=24:00:00 gpus=1 cpus=8
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_settings, add_suite_arguments, check_given, how_to_work, positive

if TYPE_CHECKING:  # importing it takes seconds
    from mmseg_gpt.lab.suite.plans import Table

TABLES = ('fgvc', 'vtab', 'ade20k', 'table4', 'table6', 'table7', 'table8', 'figure1', 'figure6', 'figure7',
          'figure8')
ALIASES = dict(table1='fgvc', table2='vtab', table3='ade20k')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=(*TABLES, *ALIASES, 'all'), metavar='TABLE', help=' | '.join((*TABLES, 'all')))
    for what, example in (('vits', 'mae'), ('methods', 'gpt'), ('tasks', 'cub, or a group of VTAB-1K: natural')):
        parser.add_argument(f'--{what}', nargs='+', default=(), metavar='NAME', help=f'run only these, such as '
                            f'{example}; the table has room for all')
    parser.add_argument('--authors-protocol', action='store_true', help='classification: as the authors\' code, see '
                        'mmseg-gpt train --help')
    add_settings(parser)
    ways = add_suite_arguments(parser, 'work_dirs/suite; tables that have the same runs share them')
    ways.add_argument('--estimate', action='store_true', help='only say how many runs, images and operations these '
                      'are, and how long they take where it is known how fast a GPU is')
    add_estimate_arguments(parser)
    args = parser.parse_args()
    args.table = ALIASES.get(args.table, args.table)
    args.seeds = list(dict.fromkeys(args.seeds))
    if args.benchmark and args.images_per_second:
        parser.error('--benchmark and --images-per-second both say how fast a GPU is: give one of them')
    check_given(args, parser, 'estimate', 'benchmark', 'images_per_second', 'gpus', 'price')
    if args.price and not (args.benchmark or args.images_per_second):
        parser.error('--price needs --benchmark or --images-per-second, which say how fast a GPU is')
    return args


def add_estimate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of an estimate."""
    group = parser.add_argument_group('estimate')
    group.add_argument('--benchmark', type=Path, metavar='FILE', help='what mmseg-gpt benchmark --what '
                       'train,eval,costs --json FILE has measured')
    group.add_argument('--images-per-second', type=positive(float), nargs=2, metavar=('TRAIN', 'EVAL'), help='instead: '
                       'of the benchmark\'s model, SETR-PUP on ViT-B/16 at 512 pixels, in training and in evaluation')
    group.add_argument('--gpus', type=positive(int), nargs='+', default=[1, 8, 64], metavar='N', help='numbers of '
                       'GPUs to estimate for (default: 1 8 64)')
    group.add_argument('--price', type=positive(float), metavar='AMOUNT', help='price of an hour of a GPU')


def print_estimate(args: argparse.Namespace, tables: 'dict[str, Table]') -> None:
    """Prints an estimate.

    Raises:
        SystemExit: the benchmark's file does not say what is needed.
    """
    from mmseg_gpt.lab.suite.estimate import estimate, rates_by_hand, rates_of_benchmark
    try:
        rates = (rates_of_benchmark(args.benchmark) if args.benchmark else rates_by_hand(*args.images_per_second)
                 if args.images_per_second else None)
    except ValueError as error:
        sys.exit(str(error))
    print(estimate(tables, args.seeds, rates, args.gpus, args.price))


def main() -> None:
    args = parse_args()
    from mmseg_gpt.lab import suite  # after the arguments, as importing takes seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the runs that are going on are saved
    out, settings = args.out or Path('work_dirs/suite'), args.cfg_options or ()
    options, suffix = (['--authors-protocol'], '_authors') if args.authors_protocol else ([], '')
    names = TABLES if args.table == 'all' else [args.table]
    tables = {name: suite.with_options(suite.plan(name, args.methods), settings, options, suffix) for name in names}
    try:
        entries = suite.select([entry for table in tables.values() for entry in table.entries], args.vits,
                               args.methods, args.tasks)
    except ValueError as error:
        sys.exit(str(error))
    if args.estimate:
        chosen = {*entries}
        print_estimate(args, {name: table._replace(entries=[entry for entry in table.entries if entry in chosen])
                              for name, table in tables.items()})
        return
    home = out / 'runs'

    def write() -> str:
        said = []
        for name, table in tables.items():
            # What others have run counts as well.
            records = suite.outcomes(suite.runs_of(table.entries, args.seeds), home)
            said.append(suite.write_table(name, table, records, args.seeds, out / f'{name}{suffix}',
                                          [*options, *settings]))
        return '\n\n'.join(said)

    suite.work(suite.runs_of(entries, args.seeds), home, write, **how_to_work(args))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:  # before the first run; a run that is stopped has been saved
        sys.exit('\nstopped')

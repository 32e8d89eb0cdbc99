"""Searches the learning rate, the gate prior and the number of prompts of a config on its validation images.

Every point is trained and evaluated with tools/train.py and tools/test.py --search-split, which see no test image.
A finished run is not run again and an interrupted one goes on where it stopped, so the same command continues a
search. --jobs carries out several runs at once, spread over the GPUs that are visible; several processes with the same
--out, on one machine or several, share them; and --on slurm or --on ray makes each a job of a cluster.
"""

import argparse
import math
import signal
import sys
from pathlib import Path

from arguments import add_config_arguments, add_suite_arguments, how_to_work, positive


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('--lr', nargs='+', type=positive(float), metavar='RATE', help='learning rates '
                        '(default: by the optimizer; those of the paper for SGD, 0.0001 to 0.01 for AdamW)')
    parser.add_argument('--gate-init', nargs='+', type=finite, default=(), metavar='PRIOR', help='gate priors, as '
                        'distances from 0 like in Table 5 (default: the config\'s)')
    parser.add_argument('--prompts', nargs='+', type=positive(int), default=(), metavar='N', help='numbers of prompts; '
                        'for VPT-deep, in each block (default: the config\'s)')
    add_suite_arguments(parser, 'work_dirs/search/NAME_OF_CONFIG')
    args = parser.parse_args()
    args.seeds = list(dict.fromkeys(args.seeds))
    return args


def finite(text: str) -> float:
    """A number, which infinity is not."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f'{text} is not a number')
    return value


def main() -> None:
    args = parse_args()
    from mmseg_gpt.lab import suite  # after the arguments, as importing takes seconds
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the runs that are going on are saved
    out = args.out or Path('work_dirs/search') / Path(args.config).stem
    try:
        search = suite.grid(args.config, args.cfg_options or (), args.lr, args.gate_init, args.prompts)
    except ValueError as error:
        sys.exit(str(error))
    runs, home = suite.runs_of(search.entries, args.seeds), out / 'runs'
    suite.work(runs, home, lambda: suite.write_search(
        search, suite.outcomes(runs, home), args.seeds, out / 'search'), **how_to_work(args))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:  # before the first run; a run that is stopped has been saved
        sys.exit('\nstopped')

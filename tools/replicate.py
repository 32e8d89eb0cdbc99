"""The paper in miniature: draws data, pretrains small ViTs on it, adapts them by every method, and says what holds.

Scenes to segment, a fine-grained and a spatial task to classify; MAE, MoCo v3 and a supervised twin; Gated Prompt
Tuning, its ablations, VPT, LoRA with and without prompts, AdaptFormer, bias-only tuning, the head alone and full
fine-tuning, all with equal budgets, learning rates chosen on validation images, and several seeds. Results go to
results.md, .csv, .json and figures in the folder.

A finished run is not run again, so the same command continues after an interruption.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from arguments import (
    ROOT,
    add_cluster_arguments,
    check_publishing,
    from_root,
    positive,
    runs_at_once,
    where_to_work,
)

HOME = 'work_dirs/replicate'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='a few images and iterations: shows in minutes that every '
                        'step works, and learns nothing')
    parser.add_argument('--out', type=Path, metavar='DIR', help='where everything goes '
                        f'(default: {HOME}, with --quick {HOME}_quick)')
    parser.add_argument('--jobs', '--workers', type=positive(int), metavar='N', help='runs at once (default: one for '
                        'each CPU, and no more than 8 on a GPU)')
    ways = add_cluster_arguments(parser)
    ways.add_argument('--report-only', action='store_true', help='write the results of what has finished, and run '
                      'nothing')
    parser.add_argument('--retry-failed', action='store_true', help='give runs that failed another chance')
    parser.add_argument('--overwrite', action='store_true', help='remove runs of other settings in the folder and '
                        'start them over')
    parser.add_argument('--publish', action='store_true', help='write the results into docs/replication and '
                        'docs/miniature.md, for those who keep this repository')
    args = parser.parse_args()
    check_publishing(args.publish, parser)
    args.out = from_root(Path(os.path.abspath(args.out or ROOT / (f'{HOME}_quick' if args.quick else HOME))))
    return args


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: takes the runs along
    os.environ['OMP_NUM_THREADS'] = '1'  # of each run, as there is one for every CPU
    os.chdir(ROOT)  # the configs name their data from there
    from mmseg_gpt.lab.miniature.carry_out import known_runs, replicate
    from mmseg_gpt.lab.miniature.plan import FULL, QUICK
    from mmseg_gpt.lab.miniature.report import publish
    from mmseg_gpt.lab.runs import look_after
    preset, where = QUICK if args.quick else FULL, where_to_work(args)
    if args.watch or args.cancel:
        look_after(*known_runs(preset, args.out), args.cancel)
        return
    results = replicate(
        preset, args.out, report_only=args.report_only, retry_failed=args.retry_failed, overwrite=args.overwrite,
        cluster=where['cluster'], jobs=runs_at_once(args.jobs))
    if args.publish:
        publish(results)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command goes on')

"""Compares methods on photographs with a real pretrained ViT: CamVid, Oxford Flowers 17, or ten textures.

The head alone, Visual Prompt Tuning, Gated Prompt Tuning and its parts, biases, LoRA and full fine-tuning have equal
budgets, learning rates chosen on validation images from one grid, and several seeds. Test images are looked at once, at
the end. A finished run is not run again, so the same command continues after an interruption.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from arguments import (
    ROOT,
    add_cluster_arguments,
    check_given,
    check_publishing,
    from_root,
    positive,
    runs_at_once,
    where_to_work,
)

SETS = ('flowers17', 'dtd10', 'camvid')
PARTS = ('methods', 'labels', 'gates', 'figures', 'heads', 'aim')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('set', choices=SETS, help='which photographs')
    parser.add_argument('--data', type=Path, metavar='DIR', help='where they are (default: data/SET)')
    parser.add_argument('--vit', default='dinov2-s', metavar='NAME', help='the pretrained ViT (default: %(default)s)')
    parser.add_argument('--checkpoint', type=Path, metavar='FILE', help='its weights (default: the file in pretrained/ '
                        'that its config names)')
    parser.add_argument('--quick', action='store_true', help='a few images and iterations: shows in minutes that every '
                        'step works, and learns nothing')
    parser.add_argument('--out', type=Path, metavar='DIR', help='where everything goes (default: work_dirs/study/SET, '
                        'with --quick SET_quick)')
    parser.add_argument('--jobs', type=positive(int), metavar='N', help='runs at once (default: one for each CPU, and '
                        'no more than 8 on a GPU)')
    ways = add_cluster_arguments(parser)
    parser.add_argument('--parts', nargs='+', choices=PARTS, metavar='PART', help='carry out only these parts, without '
                        'a look at the test images: methods, labels (10 %% and 25 %% of them), gates, figures (where '
                        'prompts enter, and how many), heads (another one, for the best few), aim (larger images)')
    parser.add_argument('--look', action='store_true', help='with --parts: look at the test images after them. Nothing '
                        'can be chosen after that')
    ways.add_argument('--estimate', action='store_true', help='time some iterations of each kind of run, say how long '
                      'all takes, and stop')
    ways.add_argument('--report-only', action='store_true', help='write the results of what has finished, and run '
                      'nothing')
    parser.add_argument('--retry-failed', action='store_true', help='give runs that failed another chance; after the '
                        'look at the test images, only its tests')
    parser.add_argument('--overwrite', action='store_true', help='remove runs of other settings in the folder and '
                        'start them over')
    parser.add_argument('--publish', action='store_true', help='write the results into docs/photographs and '
                        'docs/photographs.md, for those who keep this repository')
    args = parser.parse_args()
    check_given(args, parser, 'parts', 'look')
    check_publishing(args.publish, parser)
    place = args.out or ROOT / 'work_dirs/study' / f'{args.set}{"_quick" if args.quick else ""}'
    args.out = from_root(Path(os.path.abspath(place)))
    args.data = args.data.absolute() if args.data else Path('data') / args.set
    args.checkpoint = args.checkpoint and args.checkpoint.absolute()
    return args


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: takes the runs along
    os.environ['OMP_NUM_THREADS'] = '1'  # of each run, as there is one for every CPU
    os.chdir(ROOT)  # the configs name their data from there
    import torch

    from mmseg_gpt.lab.runs import look_after
    from mmseg_gpt.lab.study.carry_out import Execution, known_runs, study
    from mmseg_gpt.lab.study.page import publish
    from mmseg_gpt.lab.study.plan import FULL, QUICK, StudyPlan
    plan = StudyPlan(args.set, QUICK if args.quick else FULL, args.out, args.data, args.vit, args.checkpoint,
                     ('--device', 'cuda') if torch.cuda.is_available() else ())
    where = where_to_work(args)
    if args.watch or args.cancel:
        look_after(known_runs(plan, args.parts), plan.runs, args.cancel)
        return
    work = Execution(plan, runs_at_once(args.jobs), args.retry_failed, args.overwrite, where['cluster'])
    if args.estimate:
        print(work.estimate(args.parts))
        return
    results = study(work, args.parts, look=args.look, report_only=args.report_only)
    if args.publish:
        publish(results)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command goes on')

"""Draws the gain from gates and temperatures, and the effect of the number of prompts: Figures 6, 7 and 8 of the paper.

    --by groups     Figure 6: bars of the means over groups of datasets
    --by datasets   Figure 8: bars for each dataset
    --by prompts    Figure 7: lines over the number of prompts

It draws the finished runs of mmseg-gpt suite (figure6, figure8, figure7); or any given runs, grouped by the
settings they were trained with:

    mmseg-gpt plot-ablation work_dirs/cls_vpt-shallow_mae_cub work_dirs/cls_gpt_mae_cub

Each run is a work directory of mmseg-gpt train, with the metrics.json that mmseg-gpt test wrote. Runs that differ
only in their seeds become one bar or point, with the standard deviation. The mean over a group uses the seeds for
which all datasets of the group are finished.
"""

import argparse

from arguments import add_run_figure_arguments

FIGURES = dict(groups='figure6', datasets='figure8', prompts='figure7')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_figure_arguments(parser, 'ablation.png')
    parser.add_argument('--by', choices=FIGURES, help='default: groups for a suite, datasets for given runs')
    args = parser.parse_args()
    args.by = args.by or ('datasets' if args.runs else 'groups')
    return args


def main() -> None:
    args = parse_args()
    from mmseg_gpt.lab.suite.figures import draw_and_write  # after the arguments, as importing takes seconds
    draw_and_write(args.runs, args.suite, args.out, FIGURES[args.by], args.by)


if __name__ == '__main__':
    main()

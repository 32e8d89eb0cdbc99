"""Draws the result by the block at which prompts enter (Figure 1 of the paper), a line for each ViT.

It draws the finished runs of mmseg-gpt suite figure1; or any given runs, grouped by the settings they were
trained with:

    mmseg-gpt plot-start-block work_dirs/start_*/seed_* --out start_block.png

Each run is a work directory of mmseg-gpt train, with the metrics.json that mmseg-gpt test wrote. Runs that
differ only in their seeds become one point, with the standard deviation.
"""

import argparse

from arguments import add_run_figure_arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_figure_arguments(parser, 'start_block.png')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmseg_gpt.lab.suite.figures import draw_and_write  # after the arguments, as importing takes seconds
    draw_and_write(args.runs, args.suite, args.out, 'figure1', 'start')


if __name__ == '__main__':
    main()

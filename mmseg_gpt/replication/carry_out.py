"""From nothing to the results, step by step; each step does what is left of it."""

import argparse
from collections.abc import Sequence

from ..commands import LiveLine
from ..suite.execute import outcomes, prepare
from ..suite.runs import Run
from ..suite.side_by_side import run_side_by_side
from .data import draw_datasets
from .plan import Plan, Preset, with_seeds
from .report import publish, write
from .results import gather


def replicate(preset: Preset, args: argparse.Namespace, workers: int) -> None:
    """Does what is left.

    Args:
        preset: How much is done.
        args: With ``out``, ``report_only``, ``retry_failed``, ``overwrite`` and ``publish``.
        workers: Runs at once.

    Raises:
        SystemExit: it was stopped, after the runs had saved what they need to go on, or runs failed.
    """
    plan = Plan(preset, args.out)
    plan.write_configs()
    stopped = ''
    try:
        if not args.report_only:
            do_what_is_left(plan, args, workers)
    except KeyboardInterrupt:
        stopped = 'stopped; the same command goes on'
    results = gather(plan)
    print(f'\n{write(results, plan.home)}\nwritten: {plan.home}/results.md, .csv, .json and figures')
    if args.publish:
        publish(results)
    if stopped:
        raise SystemExit(stopped)
    if failed := results['about']['failed']:
        raise SystemExit(f'{failed} runs failed; --retry-failed gives them another chance')


def do_what_is_left(plan: Plan, args: argparse.Namespace, workers: int) -> None:
    """Draws, pretrains, searches and adapts."""
    draw(plan)
    carry_out(plan, plan.pretrainings(), 'pretraining', args, workers)
    chosen = {}
    for what in ('learning rates of heads', 'learning rates'):
        searched = [run for runs in plan.searches(chosen).values() for run in runs.values()]
        carry_out(plan, searched, what, args, workers)
        chosen = plan.choose(outcomes(searched, plan.runs), chosen)
    carry_out(plan, with_seeds(plan.tables(chosen).values(), plan.preset.seeds), 'results', args, workers)


def carry_out(plan: Plan, runs: Sequence[Run], title: str, args: argparse.Namespace, workers: int) -> None:
    """Carries out runs."""
    prepare(runs, plan.runs, args.retry_failed, args.overwrite)
    run_side_by_side(runs, plan.runs, workers, title, args.retry_failed)


def draw(plan: Plan) -> None:
    """Draws the data."""
    line = LiveLine()
    if not draw_datasets(plan.data, plan.preset.images, lambda done, total: line.show(f'{done}/{total} images drawn')):
        print(f'data: in {plan.data}, drawn before', flush=True)
        return
    line.end(f'data: drawn in {plan.data}')

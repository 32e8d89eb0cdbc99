"""From nothing to the results, step by step; each step does what is left of it."""

import argparse
import sys
from collections.abc import Sequence

from ..suite.execute import outcomes, prepare
from ..suite.runs import Run
from ..suite.side_by_side import run_side_by_side
from .data import draw_datasets
from .plan import Plan, Preset, with_seeds


def replicate(preset: Preset, args: argparse.Namespace, workers: int) -> None:
    """Does what is left.

    Args:
        preset: How much is done.
        args: With ``out``, ``report_only``, ``retry_failed`` and ``overwrite``.
        workers: Runs at once.

    Raises:
        KeyboardInterrupt: it was stopped.
        SystemExit: a ViT could not be pretrained.
    """
    plan = Plan(preset, args.out)
    plan.write_configs()
    if not args.report_only:
        draw(plan)
        carry_out(plan, plan.pretrainings(), 'pretraining', args, workers)
        chosen = {}
        for what in ('learning rates of heads', 'learning rates'):
            searched = [run for runs in plan.searches(chosen).values() for run in runs.values()]
            carry_out(plan, searched, what, args, workers)
            chosen = choose(plan, chosen)
        carry_out(plan, with_seeds(plan.tables(chosen).values(), preset.seeds), 'results', args, workers)


def choose(plan: Plan, chosen: dict) -> dict:
    """The learning rates that are known by now."""
    searched = [run for runs in plan.searches(chosen).values() for run in runs.values()]
    return plan.choose(outcomes(searched, plan.runs), chosen)


def carry_out(plan: Plan, runs: Sequence[Run], title: str, args: argparse.Namespace, workers: int) -> None:
    """Carries out runs."""
    prepare(runs, plan.runs, args.retry_failed, args.overwrite)
    run_side_by_side(runs, plan.runs, workers, title, args.retry_failed)


def draw(plan: Plan) -> None:
    """Draws the data."""
    def show(done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            print(f'\r{done}/{total} images drawn', end='\n' if done == total else '', flush=True)

    if not draw_datasets(plan.data, plan.preset.images, show if sys.stdout.isatty() else lambda done, total: None):
        print(f'data: in {plan.data}, drawn before', flush=True)

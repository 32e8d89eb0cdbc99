"""From nothing to the results, step by step; each step does what is left of it."""

import argparse
import shutil
from collections.abc import Sequence

import torch

from ..commands import LiveLine
from ..drawn.folder import read_manifest
from ..execute import FINISHED, prepare, read_record
from ..run import Run
from ..side_by_side import run_side_by_side
from .data import draw_datasets, settings_of_data
from .plan import Plan, Preset
from .report import publish, write
from .results import choose_all, gather
from .tables import tables_of, with_seeds


def replicate(preset: Preset, args: argparse.Namespace, workers: int) -> None:
    """Does what is left.

    Args:
        preset: How much is done.
        args: With ``out``, ``report_only``, ``retry_failed``, ``overwrite`` and ``publish``.
        workers: Runs at once.

    Raises:
        SystemExit: it was stopped, after the runs had saved what they need to go on, or runs failed.
    """
    plan = Plan(preset, args.out, ('--device', 'cuda') if torch.cuda.is_available() else ())
    plan.write_configs()
    stopped = ''
    try:
        if not args.report_only:
            do_what_is_left(plan, args, workers)
    except KeyboardInterrupt:
        stopped = 'stopped; the same command goes on'
    results = gather(plan)
    print(f'\n{write(results, plan.home)}\nwritten: {plan.home}/results.md, .csv, .json and figures')
    if stopped:
        raise SystemExit(stopped)
    check_complete(results['about'])
    if args.publish:
        publish(results)


def check_complete(about: dict) -> None:
    """Stops where runs have failed, or are being carried out by another process."""
    if about['failed']:
        raise SystemExit(f'{about["failed"]} runs failed; --retry-failed gives them another chance')
    if about['finished'] < about['runs']:
        raise SystemExit(f'{about["runs"] - about["finished"]} of the runs that are known by now have not finished')


def do_what_is_left(plan: Plan, args: argparse.Namespace, workers: int) -> None:
    """Draws, pretrains, searches and adapts."""
    draw(plan, args.overwrite)

    def carry_out(runs: Sequence[Run], title: str) -> None:
        prepare(runs, plan.runs, args.retry_failed, args.overwrite)
        run_side_by_side(runs, plan.runs, workers, title, args.retry_failed)

    carry_out(plan.pretrainings(), 'pretraining')
    for run in plan.pretrainings():
        record = read_record(plan.runs / run.name)
        if record.get('status') != FINISHED:
            raise SystemExit(f'{run.name} has not finished, so there is no ViT to adapt: '
                             f'{record.get("reason", "another process is running it")}')
    chosen, _ = choose_all(plan, carry_out)
    carry_out(with_seeds(tables_of(plan, chosen).values(), plan.preset.seeds), 'results')


def draw(plan: Plan, overwrite: bool) -> None:
    """Draws the data.

    Raises:
        SystemExit: there are runs of other data.
    """
    drawn, wanted = read_manifest(plan.data), dict(complete=True, **settings_of_data(plan.preset.images))
    if drawn not in (None, dict(complete=False), wanted) and plan.runs.is_dir():
        if not overwrite:
            raise SystemExit(f'{plan.home} holds runs of other data. --overwrite removes them and starts over, --out '
                             'DIR writes elsewhere')
        shutil.rmtree(plan.runs)
    line = LiveLine()
    if draw_datasets(plan.data, plan.preset.images, lambda done, total: line.show(f'{done}/{total} images drawn')):
        line.end(f'data: drawn in {plan.data}')
    else:
        print(f'data: in {plan.data}, drawn before', flush=True)

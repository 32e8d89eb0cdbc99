"""From nothing to the results, step by step; each step does what is left of it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..drawn.folder import read_manifest
from ..runs import FINISHED, Run, prepare, read_record, run_all
from ..runs.jobs import Cluster
from ..runs.progress import Display, in_words
from ..runs.series import what_stopped
from ..suite.plans import runs_in
from .data import draw_datasets, settings_of_data
from .plan import Plan, Preset
from .report import write
from .results import choose_all, gather
from .tables import tables_of


def replicate(preset: Preset, home: Path, *, jobs: int = 1, report_only: bool = False, retry_failed: bool = False,
              overwrite: bool = False, cluster: Cluster | None = None) -> dict:
    """Does what is left, writes the results, and returns them.

    Args:
        preset: How much is done.
        home: Where everything goes.
        jobs: How many runs are carried out at once.
        report_only: Write the results of what has finished, and run nothing.
        retry_failed: Give runs that failed another chance.
        overwrite: Remove runs of other settings, and start them over.
        cluster: Where runs are carried out, if not here.

    Raises:
        SystemExit: it was stopped, after the runs had saved what they need to go on, or runs failed.
    """
    plan = Plan(preset, home, ('--device', 'cuda') if torch.cuda.is_available() else ())
    plan.write_configs()
    stopped = ''
    try:
        if not report_only:
            do_what_is_left(plan, jobs, retry_failed, overwrite, cluster)
    except KeyboardInterrupt:
        stopped = what_stopped(cluster)
    results = gather(plan)
    print(f'\n{write(results, plan.home)}\nwritten: {plan.home}/results.md, .csv, .json and figures')
    if stopped:
        raise SystemExit(stopped)
    check_complete(results['about'])
    return results


def check_complete(about: dict) -> None:
    """Stops where runs have failed, or are being carried out by another process."""
    if about['failed']:
        raise SystemExit(f'{about["failed"]} runs failed; --retry-failed gives them another chance')
    if about['finished'] < about['runs']:
        raise SystemExit(f'{about["runs"] - about["finished"]} of the runs that are known by now have not finished')


def known_runs(preset: Preset, home: Path) -> tuple[list[Run], Path]:
    """Returns the runs that are known by now, as later ones depend on what earlier ones give; and their folder."""
    plan = Plan(preset, home)
    runs = plan.pretrainings()
    chosen, _ = choose_all(plan, lambda searched, title: runs.extend(searched))
    runs += runs_in(tables_of(plan, chosen).values(), plan.preset.seeds)
    return list(dict.fromkeys(runs)), plan.runs


def do_what_is_left(plan: Plan, jobs: int, retry_failed: bool, overwrite: bool, cluster: Cluster | None) -> None:
    """Draws, pretrains, searches and adapts."""
    draw(plan, overwrite)

    def carry_out(runs: Sequence[Run], title: str) -> None:
        prepare(runs, plan.runs, retry_failed, overwrite)
        run_all(runs, plan.runs, title=title, jobs=jobs, again=retry_failed, forked=True,
                cluster=cluster)

    carry_out(plan.pretrainings(), 'pretraining')
    for run in plan.pretrainings():
        record = read_record(plan.runs / run.name)
        if record.get('status') != FINISHED:
            raise SystemExit(f'{run.name} has not finished, so there is no ViT to adapt: '
                             f'{record.get("reason", "another process is running it")}')
    chosen, _ = choose_all(plan, carry_out)
    carry_out(runs_in(tables_of(plan, chosen).values(), plan.preset.seeds), 'results')


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
    with Display() as display:
        display.add('data', 'data')

        def show(done: int, total: int) -> None:
            said = in_words(dict(phase='draw', done=done, total=total))
            display.update('data', done, total, said)
            display.say_now_and_then(f'data: {said}')

        drawn = draw_datasets(plan.data, plan.preset.images, show)
    print(f'data: {"drawn in" if drawn else "in"} {plan.data}{"" if drawn else ", drawn before"}', flush=True)

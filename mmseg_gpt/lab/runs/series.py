"""A series of runs, as a tool carries it out: it is listed, or prepared and run, and then its results are shown."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ...checks.before import refuse
from ...checks.missing import missing_checkpoint, missing_datasets
from ...settings import look_up
from .jobs import Cluster
from .loop import run_all
from .record import FAILED, clear, differing_runs, is_done, outcomes
from .run import Run, Runnable, command_line, config_of, testing, training
from .watch import cancel, watch


def work(runs: Sequence[Run], home: Path, write: Callable[[], str], *, jobs: int = 1, dry_run: bool = False,
         report_only: bool = False, retry_failed: bool = False, overwrite: bool = False,
         cluster: Cluster | None = None, watching: bool = False, cancelling: bool = False) -> None:
    """Lists runs, or carries them out, and then writes and prints what they have given.

    Args:
        runs: In order.
        home: The folder of all runs.
        write: Writes the results, and returns them to be printed.
        jobs: How many runs are carried out at once.
        dry_run: Only list the runs with their commands.
        report_only: Only write the results of what is there.
        retry_failed: Give runs that failed another chance.
        overwrite: Remove runs of other settings, to start them over.
        cluster: Where runs are carried out, if not here.
        watching: Only show how far those are that are being carried out.
        cancelling: Only end those that are being carried out.

    Raises:
        SystemExit: it was stopped, after a run had saved what it needs to go on, or could not begin, or runs failed.
    """
    if dry_run:
        print(list_runs(runs, home))
        return
    if watching or cancelling:
        look_after(runs, home, cancelling)
        return
    stopped = ''
    if report_only:
        if others := differing_runs(runs, home):
            print(f'{len(others)} runs in {home} have other settings than now, and are not counted')
    else:
        prepare(runs, home, retry_failed, overwrite)
        try:
            run_all(runs, home, jobs=jobs, again=retry_failed, cluster=cluster)
        except KeyboardInterrupt:
            stopped = what_stopped(cluster)
    print(f'\n{write()}')
    if stopped:
        raise SystemExit(stopped)
    failed = sum(record['status'] == FAILED for record in outcomes(runs, home).values())
    if failed and not report_only:
        raise SystemExit(f'{failed} of {len(runs)} runs failed; --retry-failed gives them another chance')


def look_after(runs: Sequence[Runnable], home: Path, cancelling: bool = False) -> None:
    """Shows how far runs are that others carry out, until none is queued or running; or ends them."""
    if cancelling:
        cancel(runs, home)
        return
    with suppress(KeyboardInterrupt):
        watch(runs, home)


def what_stopped(cluster: Cluster | None) -> str:
    """Says what Ctrl-C has left behind."""
    return ('\nthe jobs go on: --watch shows them, and --cancel ends them' if cluster
            else '\nstopped; the same command goes on')


def list_runs(runs: Sequence[Run], home: Path) -> str:
    """Returns the commands that would be run, with the status of each run."""
    for run in runs[:1]:
        config_of(run)  # refuses settings and options that its tools would refuse
    records, lines = outcomes(runs, home), []
    for run in runs:
        folder, status = home / run.name, records.get(run.name, {}).get('status', 'not begun')
        commands = [training(run, folder), *testing(run, folder, folder / 'CHECKPOINT')]
        lines += [f'{run.name}: {status}', *(f'    $ {command_line(command)}' for command in commands)]
    return '\n'.join(lines)


def prepare(runs: Sequence[Run], home: Path, again: bool = False, overwrite: bool = False) -> None:
    """Stops before anything has started where a dataset or a pretrained file is missing, or runs have other settings.

    Args:
        runs: What is to be run.
        home: The folder of all runs.
        again: As for :func:`~.loop.run_all`.
        overwrite: Remove runs of other settings, to start them over.

    Raises:
        SystemExit: it says what is missing, and what to do.
    """
    others = differing_runs(runs, home)
    if others and not overwrite:
        run, what = next(iter(others.items()))
        raise SystemExit(f'{home} holds {len(others)} of these runs with other settings; in {run.name}, {what}. '
                         '--overwrite removes those and starts them over, --out DIR writes elsewhere')
    for run in others:
        clear(home / run.name, lambda run=run: differing_runs([run], home))
    records = outcomes(runs, home)
    configs = [config_of(run) for run in runs if not is_done(records.get(run.name, {}), again)]
    datasets = [cfg[loader].dataset for cfg in configs for loader in ('train_dataloader', 'test_dataloader')
                if cfg.get(loader)]
    vits = [look_up(cfg, 'model.backbone.init_cfg') for cfg in configs]
    missing = [said for vit in vits for said in missing_checkpoint(vit)]
    refuse([*missing_datasets(datasets), *dict.fromkeys(missing)], [])

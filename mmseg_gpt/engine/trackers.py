"""Where a run's visualizer tells its numbers and pictures: MMEngine's back ends by the names of their packages."""

import importlib.util
import os
from pathlib import Path

from mmengine.config import Config

PROJECT = 'mmseg_gpt'


def wandb(work_dir: Path) -> dict:
    """Options of WandbVisBackend: everything over the iterations, which wandb does not count itself."""
    return dict(init_kwargs=dict(project=PROJECT, name=work_dir.name),
                define_metric_cfg=[dict(name='*', step_metric='iter')])


def mlflow(work_dir: Path) -> dict:
    """Options of MLflowVisBackend: the server that MLFLOW_TRACKING_URI names, or a database beside the run."""
    home = work_dir.resolve().parent
    # MMEngine would write MLflow's files, which MLflow 3 no longer does.
    server = os.environ.get('MLFLOW_TRACKING_URI')
    return dict(exp_name=PROJECT, run_name=work_dir.name, tracking_uri=server or f'sqlite:///{home}/mlflow.db',
                artifact_location=None if server else (home / 'mlflow').as_uri())


# By the name that --track knows, which is that of the package: MMEngine's class, and its options. MMEngine has more:
# they are options of a config (DVCLive, for one, sets up a repository in the current folder).
BACKENDS = dict(
    tensorboard=('TensorboardVisBackend', lambda work_dir: {}),
    wandb=('WandbVisBackend', wandb),
    mlflow=('MLflowVisBackend', mlflow),
    clearml=('ClearMLVisBackend', lambda work_dir: dict(
        init_kwargs=dict(project_name=PROJECT, task_name=work_dir.name))),
    aim=('AimVisBackend', lambda work_dir: dict(init_kwargs=dict(experiment=work_dir.name))))


def set_tracking(cfg: Config, names: list[str] | None) -> None:
    """Lets a run tell its visualizer's numbers and pictures to trackers, besides those it has.

    Args:
        cfg: The config of a run, with its ``work_dir``, by which the run is called.
        names: Of ``BACKENDS``; None changes nothing.

    Raises:
        SystemExit: a tracker's package is not installed.
    """
    absent = [name for name in names or [] if importlib.util.find_spec(name) is None]
    if absent:
        raise SystemExit(f'--track {" ".join(absent)}: not installed; pip install {" ".join(absent)}')
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    backends = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    present = {backend['type'] for backend in backends}
    chosen = {kind: options for kind, options in map(BACKENDS.get, names or []) if kind not in present}
    cfg.visualizer = dict(visualizer, vis_backends=[
        *backends, *(dict(type=kind, **options(Path(cfg.work_dir))) for kind, options in chosen.items())])

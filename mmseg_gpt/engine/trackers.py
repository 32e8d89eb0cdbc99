"""Trackers that show a run's numbers and pictures: MMEngine's back ends, by the names of their packages."""

import importlib.util
import os
from pathlib import Path

from mmengine.config import Config

from ..settings import type_name

PROJECT = 'mmseg_gpt'


def wandb(work_dir: Path) -> dict:
    """Returns options of WandbVisBackend: everything is shown over iterations, which wandb does not count itself."""
    return dict(init_kwargs=dict(project=PROJECT, name=work_dir.name),
                define_metric_cfg=[dict(name='*', step_metric='iter')])


def mlflow(work_dir: Path) -> dict:
    """Returns options of MLflowVisBackend: the server that MLFLOW_TRACKING_URI names, or a database beside the run."""
    home = work_dir.resolve().parent
    # MMEngine would write MLflow's files, which MLflow 3 no longer does.
    server = os.environ.get('MLFLOW_TRACKING_URI')
    return dict(exp_name=PROJECT, run_name=work_dir.name, tracking_uri=server or f'sqlite:///{home}/mlflow.db',
                artifact_location=None if server else (home / 'mlflow').as_uri())


# MMEngine's class and its options, by the package's name, which --track takes. MMEngine has more back ends, for a
# config to name: they are not here because of what else they do (DVCLive sets up a repository in the current folder).
BACKENDS = dict(
    tensorboard=('TensorboardVisBackend', lambda work_dir: {}),
    wandb=('WandbVisBackend', wandb),
    mlflow=('MLflowVisBackend', mlflow),
    clearml=('ClearMLVisBackend', lambda work_dir: dict(
        init_kwargs=dict(project_name=PROJECT, task_name=work_dir.name))),
    aim=('AimVisBackend', lambda work_dir: dict(init_kwargs=dict(experiment=work_dir.name))))


def set_tracking(cfg: Config, names: list[str] | None) -> None:
    """Adds trackers to those that get a run's numbers and pictures.

    Args:
        cfg: The config of a run; the trackers call the run by the name of its ``work_dir``.
        names: Names in ``BACKENDS``; None adds nothing.

    Raises:
        SystemExit: a tracker's package is not installed.
    """
    absent = [name for name in names or [] if importlib.util.find_spec(name) is None]
    if absent:
        raise SystemExit(f'--track {" ".join(absent)}: not installed; pip install {" ".join(absent)}')
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    backends = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    present = set(map(type_name, backends))
    chosen = {kind: options for kind, options in map(BACKENDS.get, names or []) if kind not in present}
    cfg.visualizer = dict(visualizer, vis_backends=[
        *backends, *(dict(type=kind, **options(Path(cfg.work_dir))) for kind, options in chosen.items())])

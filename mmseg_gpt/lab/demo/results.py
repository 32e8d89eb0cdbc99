"""Gathering the numbers that a demo's steps have left."""

import json
from collections.abc import Mapping
from pathlib import Path

from ...checkpoints import read_file
from ...environment import available_cpus, installed_versions
from ..drawn.scenes import CLASSES
from ..scalars import read_scalars
from .report import majority_iou

PROMPTING = ('backbone.prompt.', 'backbone.temperature')  # beginnings of the names of prompts, gates and temperatures


def collect(work_dir: Path, counts: Mapping[str, int], seconds: Mapping[str, float], seed: int) -> dict:
    """Gathers the numbers of a finished demo of segmentation.

    Args:
        work_dir: Where its steps have left their files.
        counts: Number of images in 'training' and in 'validation'.
        seconds: How long each step took, by its name.
        seed: What the dataset was drawn with.

    Returns:
        dict: What :func:`~.report.results_table` formats.
    """
    winner, iou = majority_iou(work_dir / 'data', counts)
    single = json.loads((work_dir / 'test/metrics.json').read_text())
    _, validations = read_scalars(work_dir / 'untrained')
    return dict(
        single_scale=single, multi_scale=json.loads((work_dir / 'test/metrics_tta.json').read_text()),
        untrained=dict(mIoU=validations[-1]['mIoU']), majority={'class': winner, 'mIoU': iou / len(CLASSES)},
        parameters=count_parameters(single, work_dir / 'adapted/adapted.pth'),
        **circumstances(seconds, seed, 'torch', 'mmengine', 'mmseg', 'mmpretrain'))


def count_parameters(metrics: Mapping, checkpoint: Path) -> dict[str, int]:
    """Counts the parameters of an adapted model.

    Args:
        metrics: What tools/test.py wrote of it.
        checkpoint: Its weights.

    Returns:
        dict: How many are 'trained', how many there are in 'total', and those of prompts, gates and temperatures.
    """
    state = read_file(checkpoint)['state_dict']
    return dict(metrics['parameters'], prompts=sum(
        weight.numel() for name, weight in state.items() if name.startswith(PROMPTING)))


def circumstances(seconds: Mapping[str, float], seed: int, *packages: str) -> dict:
    """Returns how long the steps took, and on what: what the tables of both demos end with."""
    return dict(seconds=dict(seconds), seed=seed, cpus=available_cpus(), versions=installed_versions(*packages))

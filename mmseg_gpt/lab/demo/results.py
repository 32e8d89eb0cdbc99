"""Gathering the numbers that the demo's steps left."""

import json
import re
from pathlib import Path

from ...environment import available_cpus, installed_versions
from ..drawn.scenes import CLASSES
from .report import majority_iou


def collect(work_dir: Path, counts: dict[str, int], seconds: dict[str, float], seed: int) -> dict:
    """Gathers the numbers of a finished demo.

    Args:
        work_dir: Where its steps left their files and logs.
        counts: Number of images in 'training' and in 'validation'.
        seconds: How long each step took, by its name.
        seed: What the dataset was drawn with.

    Returns:
        dict: What :func:`~mmseg_gpt.lab.demo.report.results_table` formats.
    """
    winner, iou = majority_iou(work_dir / 'data', counts)
    return dict(
        single_scale=json.loads((work_dir / 'test/metrics.json').read_text()),
        multi_scale=json.loads((work_dir / 'test/metrics_tta.json').read_text()),
        untrained=dict(mIoU=last_miou((work_dir / 'logs/untrained.log').read_text())),
        majority={'class': winner, 'mIoU': iou / len(CLASSES)},
        parameters=count_parameters((work_dir / 'logs/adapt.log').read_text()),
        seconds=seconds, seed=seed, cpus=available_cpus(),
        versions=installed_versions('torch', 'mmengine', 'mmseg', 'mmpretrain'))



def last_miou(log: str) -> float:
    """The last validation result in a log."""
    return float(re.findall(r'mIoU: ([\d.]+)', log)[-1])


def count_parameters(log: str) -> dict[str, int]:
    """Reads the parameter table that training logs: rows of ``| part | trained (%) | frozen |``."""
    rows = {part: (int(trained.replace(',', '')), int(frozen.replace(',', ''))) for part, trained, frozen in
            re.findall(r'^\| ([\w. ]+?) +\| +([\d,]+)(?: \([\d.]+%\))? +\| +([\d,]+) +\|$', log, re.MULTILINE)}
    trained, frozen = rows['in all']
    return dict(trained=trained, total=trained + frozen,
                prompts=rows['backbone.prompt'][0] + rows['backbone.temperature'][0])

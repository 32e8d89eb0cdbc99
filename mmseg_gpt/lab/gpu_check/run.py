"""All parts of the check, the most telling first."""

import os
import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch

from ..benchmark.cuda import usual_batch
from ..benchmark.parity import SIZES
from ..benchmark.variants import Sizes, read_config
from . import numbers, runs, speed
from .numbers import Setting
from .parts import Parts

# The seconds that each part takes on a GPU, for which there must be time before it begins; in the order of running.
NEEDED = dict(machine=0, float64=15, shorter_types=25, deterministic=10, rate=5, images_per_second=70,
              sample_training=110, cuda_graph=25, deterministic_graph=10, kernels=15, marked_tests=30, compiled=90)


def check(config: str | Path, out: str | Path, device: torch.device, seconds: float, quick: bool = False,
          only: Collection[str] = ()) -> dict:
    """Checks a device, and writes ``gpu_check.json`` and ``gpu_check.md`` after each part.

    Args:
        config: The config of our model.
        out: Folder for both.
        device: The device.
        seconds: The most time to take.
        quick: Whether to use tiny models, to see that all works.
        only: Names of parts in ``NEEDED``; empty for all.

    Returns:
        dict: The results, by part.
    """
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # for the deterministic mode; read when CUDA starts
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == 'cuda' else 0
    sizes = SIZES if quick else Sizes(batch=usual_batch(memory))
    setting, parts = Setting(read_config(config), device, sizes, quick), Parts(out, seconds, only)

    def left() -> float:
        return parts.left

    with tempfile.TemporaryDirectory() as folder:
        works = dict(
            {name: partial(getattr(numbers if hasattr(numbers, name) else speed, name), setting)
             for name in NEEDED if hasattr(numbers, name) or hasattr(speed, name)},
            images_per_second=lambda: speed.images_per_second(setting, known_rates(parts.results)),
            sample_training=lambda: runs.sample_training(setting, Path(folder), left),
            marked_tests=lambda: runs.marked_tests(setting, left))
        for name, needed in NEEDED.items():
            parts.run(name, 0 if quick else needed, works[name])
    return parts.results


def known_rates(results: dict) -> dict[str, float]:
    """Returns the measured rates, or none if they were not measured."""
    found = results.get('rate', {})
    return {} if 'not_run' in found else found

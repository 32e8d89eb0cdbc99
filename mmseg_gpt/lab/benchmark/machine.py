"""The machine: its names and versions, and its measured rate of matrix products and memory bandwidth."""

import os
import platform
import time
from collections.abc import Callable

import torch

from ...environment import cpu_name, installed_versions
from .timing import run_once


def describe(device: torch.device) -> dict:
    """Returns the names and versions that a measurement must state."""
    return dict(
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name(), type=device.type,
        threads=torch.get_num_threads(), cpus=os.cpu_count(), python=platform.python_version(),
        versions=installed_versions('torch', 'mmengine', 'mmseg'), cuda=torch.version.cuda,
        date=time.strftime('%Y-%m-%d %H:%M'))


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Returns the seconds of the fastest of some runs after a first one: the machine at its best."""
    work()
    return min(run_once(work, device) for _ in range(repeats))


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """Measures the FLOP/s of a product of two square matrices."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / best_seconds(lambda: a @ b, device)


def bandwidth(device: torch.device, size: int) -> float:
    """Measures the bytes/s of a copy of ``size`` bytes, each of which is read and written."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def rates(device: torch.device, small: bool = False) -> dict[str, float]:
    """Measures matrix rates in FLOP/s by type, and the bandwidth in bytes/s; ``small`` is quick and inexact."""
    side, size = (8192, 2**30) if device.type == 'cuda' else (2048, 2**28)
    if small:
        side, size = 256, 2**22
    return dict(float32=matrix_rate(torch.float32, device, side), bfloat16=matrix_rate(torch.bfloat16, device, side),
                bandwidth=bandwidth(device, size))

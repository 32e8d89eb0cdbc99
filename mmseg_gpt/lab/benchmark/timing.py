"""Measuring time: all variants in turn, round after round, so that a disturbance affects all of them."""

import random
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from mmengine.utils import ProgressBar


def measure(work: dict[str, Callable[[], object]], rounds: int, warmup: int, seed: int, device: torch.device,
            clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Runs each of ``work`` once in a round, in an order drawn anew for each round.

    Args:
        work: Functions to measure, by name.
        rounds: Number of measurements of each.
        warmup: Rounds before these, which do not count.
        seed: Seed of the orders.
        device: Device that does the work.
        clock: The clock of a CPU; ``time.process_time`` where others use the machine too.

    Returns:
        dict: Seconds of each round, by name.
    """
    seconds = {name: [] for name in work}
    order, shuffle = list(work), random.Random(seed).shuffle
    bar = ProgressBar(len(work) * (warmup + rounds), file=sys.stderr)
    for _ in range(warmup + rounds):
        shuffle(order)
        for name in order:
            seconds[name].append(run_once(work[name], device, clock))
            bar.update()
    print(file=sys.stderr)
    return {name: values[warmup:] for name, values in seconds.items()}


def run_once(work: Callable[[], object], device: torch.device,
             clock: Callable[[], float] = time.perf_counter) -> float:
    """Measures the seconds of one call; on CUDA between two events, after all earlier work has ended."""
    if device.type != 'cuda':
        start = clock()
        work()
        return clock() - start
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize(device)
    events[0].record()
    work()
    events[1].record()
    torch.cuda.synchronize(device)
    return events[0].elapsed_time(events[1]) / 1000


def summarise(seconds: dict[str, list[float]], against: str) -> dict[str, dict]:
    """Computes medians and quartiles of the seconds, and of the speedup over ``against`` in each round.

    Returns:
        dict: By name, ``seconds`` of each round, ``median``, ``quartiles`` and, if ``against`` was measured,
        ``speedup`` with ``median`` and ``quartiles`` over rounds.
    """
    def quartiles_of(values: list[float]) -> dict:
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        return dict(median=median, quartiles=[low, high])

    summary = {name: dict(quartiles_of(values), seconds=values) for name, values in seconds.items()}
    if against in seconds:
        for name, values in seconds.items():
            summary[name]['speedup'] = quartiles_of([base / value for base, value in zip(seconds[against], values)])
    return summary

"""Gates of finished runs, and what the miniature and the study have in common about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..analysis.gates import MOVED, GateReport, read_checkpoint, selection_ratio
from .runs import FINISHED, Run, trained_checkpoint

PRIOR = -5.  # of soft gates, the most frequent one in Table 5
SGD_HEAD = 0.1  # the learning rate of the head with SGD


def gates_of(run: Run, home: Path) -> GateReport:
    """Returns the gates of a finished run in a folder of runs."""
    return read_checkpoint(trained_checkpoint(run, home / run.name), run.name)


def ratios_of(runs: Sequence[Run], records: Mapping[str, dict], home: Path) -> list[list[float]]:
    """Returns the selection ratio of each block before the last, for each run.

    It is empty where a run has not finished, or gates have hardly moved: their ratio is that of their prior.

    Args:
        runs: The same run with each seed.
        records: The records of runs, by name.
        home: The folder of the runs.
    """
    if any(records.get(run.name, {}).get('status') != FINISHED for run in runs):
        return []
    reports = [gates_of(run, home) for run in runs]
    if not reports or min(report.moved for report in reports) < MOVED:
        return []
    return [selection_ratio(report.gates).tolist() for report in reports]

"""Runs: trainings with their tests, and other commands, each carried out once and on record.

:mod:`.run` says which commands a run consists of and what decides its result. :mod:`.loop` carries out any number of
runs, one after the other or several at once: it begins an :class:`~.execute.Attempt` at each, which starts one command
after the other (:mod:`.processes`), follows what they report and keeps the record (:mod:`.record`), while
:mod:`.progress` shows how far they are; :mod:`.claim` keeps two processes from one run. :mod:`.series` is what a tool
does with its runs.

Or each run is a job of a cluster (:mod:`.jobs`: :mod:`.slurm`, :mod:`.on_ray`), which does in its place what the loop
does with one run here, and :mod:`.watch` shows from the shared folder how far all are.
"""

from .loop import run_all
from .record import FAILED, FINISHED, differing_runs, diverged, outcomes, read_record
from .run import (
    SETTINGS,
    Run,
    adapter_only_setting,
    command_line,
    config_of,
    decisive_settings,
    format_number,
    relative_path,
    trained_checkpoint,
    with_settings,
)
from .series import look_after, prepare, work

__all__ = ['FAILED', 'FINISHED', 'SETTINGS', 'Run', 'adapter_only_setting', 'command_line', 'config_of',
           'decisive_settings', 'differing_runs', 'diverged', 'format_number', 'look_after', 'outcomes', 'prepare',
           'read_record', 'relative_path', 'run_all', 'trained_checkpoint', 'with_settings', 'work']

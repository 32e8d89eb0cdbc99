"""Checks before a run, so that what is wrong is said in one screen, in seconds, and before anything is written."""

from .before import check_files, check_run
from .keys import check_options

__all__ = ['check_files', 'check_options', 'check_run']

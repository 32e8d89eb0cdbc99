"""Checks before a run: they say in seconds, on one screen, what is wrong, and before anything is written."""

from .before import check_files, check_run
from .keys import check_options

__all__ = ['check_files', 'check_options', 'check_run']

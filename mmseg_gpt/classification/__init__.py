"""What needs mmpretrain, all in one place: importing this package registers it."""

from .experiment import experiment, read_experiment
from .protocols import follow_the_authors, hold_out_for_search

__all__ = ['experiment', 'follow_the_authors', 'hold_out_for_search', 'read_experiment']

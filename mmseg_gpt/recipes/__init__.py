"""What the paper and its users run: methods, ViTs, tasks, and the experiments that they make together."""

from .experiment import experiment, read_experiment
from .protocols import follow_the_authors, hold_out_for_search

__all__ = ['experiment', 'follow_the_authors', 'hold_out_for_search', 'read_experiment']

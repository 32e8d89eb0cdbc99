"""Classification: experiments by name, and their protocols. Importing ``.datasets`` needs mmpretrain; this does not."""

from .experiment import experiment, read_experiment
from .protocols import follow_the_authors, hold_out_for_search

__all__ = ['experiment', 'follow_the_authors', 'hold_out_for_search', 'read_experiment']

"""What needs mmpretrain, all in one place: importing this package registers it."""

from .datasets import NABirds, StanfordDogs, VTABTask, held_out
from .experiment import experiment, read_experiment
from .protocols import follow_the_authors, hold_out_for_search

__all__ = ['NABirds', 'StanfordDogs', 'VTABTask', 'experiment', 'follow_the_authors', 'held_out',
           'hold_out_for_search', 'read_experiment']

"""What needs mmpretrain, all in one place: importing this package registers it."""

from .datasets import NABirds, StanfordDogs, VTABTask, held_out

__all__ = ['NABirds', 'StanfordDogs', 'VTABTask', 'held_out']

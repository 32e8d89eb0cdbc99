"""A small drawn dataset, for the demo and for tests: nothing to download, nothing to license."""

from .dataset import make_dataset
from .scenes import CLASSES, PALETTE, draw_scene

__all__ = ['CLASSES', 'PALETTE', 'draw_scene', 'make_dataset']

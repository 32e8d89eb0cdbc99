"""Small drawn datasets, for the demos and for tests: nothing to download, nothing to license."""

from .dataset import make_dataset
from .image_folder import make_image_folder
from .scenes import CLASSES, PALETTE, draw_scene
from .shapes import SHAPES, draw_shape

__all__ = ['CLASSES', 'PALETTE', 'SHAPES', 'draw_scene', 'draw_shape', 'make_dataset', 'make_image_folder']

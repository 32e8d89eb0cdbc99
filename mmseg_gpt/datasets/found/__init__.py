"""What is found in people's folders: images and masks in whatever layout, class folders, and what the masks mean."""

from .classes_of_folders import find_labelled_images
from .layout import find_pairs
from .pixels import PixelReport, describe_pixels, parse_bands, parse_scale
from .splits import make_split
from .task import task_of_folder
from .types import Found, FoundClasses, FoundError, Pair

__all__ = [
    'Found', 'FoundClasses', 'FoundError', 'Pair', 'PixelReport', 'describe_pixels', 'find_labelled_images',
    'find_pairs', 'make_split', 'parse_bands', 'parse_scale', 'task_of_folder'
]

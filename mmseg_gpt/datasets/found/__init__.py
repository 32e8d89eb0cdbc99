"""What is found in people's folders: images and masks in whatever layout, class folders, and what the masks mean."""

from .classes_of_folders import find_labelled_images
from .layout import find_pairs
from .splits import make_split
from .task import is_segmentation, task_of_folder
from .types import Found, FoundClasses, FoundError, Pair

__all__ = [
    'Found', 'FoundClasses', 'FoundError', 'Pair', 'find_labelled_images', 'find_pairs', 'is_segmentation',
    'make_split', 'task_of_folder'
]

"""Many tasks, of segmentation and of classification, answered by one frozen ViT that is in memory once."""

from .memory import storage_bytes
from .pool import AdapterPool
from .task import ServedTask, load_task

__all__ = ['AdapterPool', 'ServedTask', 'load_task', 'storage_bytes']

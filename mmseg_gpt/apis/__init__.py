"""Prediction for other people's code: one frozen ViT in memory answers many segmentation and classification tasks."""

from .memory import storage_bytes
from .pool import AdapterPool
from .task import ServedTask, load_task

__all__ = ['AdapterPool', 'ServedTask', 'load_task', 'storage_bytes']

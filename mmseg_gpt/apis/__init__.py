"""Prediction for other people's code: one frozen ViT in memory answers many segmentation and classification tasks."""

from .memory import storage_bytes
from .passes import Pass
from .pool import AdapterPool
from .queue import QueueClosed, RequestQueue, TooBusy
from .task import ServedTask, load_task

__all__ = ['AdapterPool', 'Pass', 'QueueClosed', 'RequestQueue', 'ServedTask', 'TooBusy', 'load_task', 'storage_bytes']

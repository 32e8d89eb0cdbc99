"""Sharing models on the Hugging Face Hub: what was trained, its config as data, and a card for people."""

from ..checkpoints.hub import HubError, HubName, read_name
from .make import SharedFiles, publish
from .pull import Pulled, pull
from .push import push

__all__ = ['HubError', 'HubName', 'Pulled', 'SharedFiles', 'publish', 'pull', 'push', 'read_name']

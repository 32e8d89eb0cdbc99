"""The exact memory of models, to compare tasks in a pool with as many separate models."""

from collections.abc import Iterable
from itertools import chain

from torch import nn


def storage_bytes(models: Iterable[nn.Module]) -> int:
    """Counts the bytes of the parameters and buffers of ``models``; memory that they share counts once."""
    storages = (tensor.untyped_storage() for model in models for tensor in chain(model.parameters(), model.buffers()))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())

"""Bytes of models, counted exactly: what tasks take in a pool, and what as many separate models would."""

from collections.abc import Iterable
from itertools import chain

from torch import nn


def storage_bytes(models: Iterable[nn.Module]) -> int:
    """Bytes of the parameters and buffers of ``models``; memory that several have in common counts once."""
    storages = (tensor.untyped_storage() for model in models for tensor in chain(model.parameters(), model.buffers()))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())

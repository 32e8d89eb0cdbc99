"""Digests of tensors, by which weights are told from others bit for bit."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def bits_of(tensor: Tensor) -> memoryview:
    """Returns all bits of a tensor, row by row."""
    return memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def digest_of(state: Mapping[str, Tensor], text: str = '') -> str:
    """Returns the SHA-256 of a text and of tensors: their names, types, shapes and bits, sorted by name."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(state.items()):
        digest.update(f'\n{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(bits_of(value))
    return digest.hexdigest()

"""Reading a checkpoint file without running anything that is inside it."""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .seal import check_seal


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file, what is wrong and what to do."""


# What files wrap around their weights: MAE 'model', MoCo v3 and OpenMMLab 'state_dict'.
WRAPPERS = ('model', 'state_dict')


def read_file(path: str | Path) -> object:
    """Reads all that is in a ``.npz``, ``.safetensors`` or torch file (any other suffix).

    Torch files are loaded with ``weights_only=True``; besides tensors and plain types only
    ``argparse.Namespace`` is allowed, which official MAE files hold. ``.npz`` is read without pickle.

    Args:
        path: A local file.

    Returns:
        The content, as it was saved, with its tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    return READERS.get(path.suffix, read_torch)(path)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads the weights in a file, as :func:`read_file` does.

    Args:
        path: A local file.

    Returns:
        dict: The innermost mapping of names to CPU tensors, with the names as they are in the file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, not a checkpoint, or holds no tensors.
    """
    content = read_file(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise CheckpointError(f'{path} holds no weights: expected names with tensors, or these under '
                              f'{" or ".join(map(repr, WRAPPERS))}')
    return tensors


def read_torch(path: Path) -> object:
    """Loads a torch file safely; each way it can fail becomes a CheckpointError."""
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and more
        raise CheckpointError(f'{path} cannot be loaded as weights. It is truncated, not a checkpoint (a web page '
                              'saved in its place?), or holds Python objects besides tensors, which are never '
                              f'loaded because they can run code. torch says: {error}') from error


def check_zip(path: Path) -> None:
    """Checks what ``torch.load`` does not: the seal of our own files, the checksums of the parts of others."""
    try:
        if check_seal(path):
            return
    except ValueError as error:
        raise CheckpointError(f'{path} is damaged: {error}. Copy it again, or take another checkpoint') from error
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise CheckpointError(f'{path} is damaged: the checksum of its part "{damaged}" is wrong; '
                              'download or copy it again')


def read_npz(path: Path) -> dict[str, Tensor]:
    """Reads a NumPy archive, as the JAX ViT checkpoints are published."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except Exception as error:  # numpy and zipfile raise more than ten types for a damaged file
        raise CheckpointError(f'{path} cannot be read as a NumPy archive: {error}') from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file."""
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{path}: reading this format needs "pip install safetensors"') from error
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f'{path} cannot be read as safetensors: {error}') from error


READERS = {'.npz': read_npz, '.safetensors': read_safetensors}

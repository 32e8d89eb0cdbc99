"""The types a checkpoint may hold: tensors and Python's own types, which torch loads safely without an allow-list."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

BUFFER = 'history_buffer'
# Numbers kept of each history: enough for every smoothing window of the log. All would take more than the adapter.
KEPT_HISTORY = 1000
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device)


def to_plain(value: object, name: str = 'checkpoint') -> object:
    """Replaces, in nested containers, every object that a safe load would refuse.

    MMEngine's HistoryBuffer becomes a dict of lists, NumPy's arrays become tensors, its scalars Python's, and a mapping
    of any class a dict. Tensors are detached and moved to the CPU, without the rest of the memory they are views of.

    Args:
        value: The content to be saved.
        name: Its name in the log, should it be left out.

    Returns:
        The plain value. An object that cannot be made plain becomes None, and the log says so: a run must not end
        because some hook keeps an object of its own.
    """
    if isinstance(value, Tensor):
        return compact(value)
    if isinstance(value, HistoryBuffer):
        history, counts = (a[-KEPT_HISTORY:].tolist() for a in value.data)
        return {BUFFER: {'history': history, 'counts': counts, 'max_length': value.max_length}}
    if isinstance(value, Mapping):
        return {to_plain(k, name): to_plain(v, f'{name}.{k}') for k, v in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(to_plain(v, f'{name}[]') for v in value)
    if isinstance(value, np.generic):
        return float(value) if isinstance(value, np.longdouble) else value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biufc':
        return torch.from_numpy(value.astype(value.dtype.newbyteorder('=')))
    if type(value) in PLAIN:
        return value
    # A subclass of a Python type, such as an enum of integers or a named tuple, becomes its base type.
    for base in (int, float, str, tuple, list):
        if isinstance(value, base):
            return to_plain(base(value), name)
    print_log(f'{name} is left out of the checkpoint: a {type(value).__module__}.{type(value).__qualname__} could not '
              'be loaded safely', logger='current', level=logging.WARNING)
    return None


def compact(tensor: Tensor) -> Tensor:
    """Returns the tensor on the CPU. Copies a view of a larger tensor, because torch would save all of the larger."""
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        return tensor
    whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    return tensor if whole and type(tensor) is Tensor else tensor.as_subclass(Tensor).clone()


def from_plain(value: object) -> object:
    """Turns the dicts that :func:`to_plain` made of MMEngine's HistoryBuffers, and only these, back into objects."""
    if isinstance(value, Mapping):
        if set(value) == {BUFFER}:
            buffer = value[BUFFER]
            return HistoryBuffer(buffer['history'], buffer['counts'], buffer['max_length'])
        return {k: from_plain(v) for k, v in value.items()}
    return value

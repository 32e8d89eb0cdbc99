"""What may be in a checkpoint: tensors and Python's own types, which torch loads safely without any allow-list."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

BUFFER = 'history_buffer'
# Enough for every smoothing window of the log; a whole run's history would outgrow the adapter.
KEPT_HISTORY = 1000
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device)


def to_plain(value: object, name: str = 'checkpoint') -> object:
    """Replaces, in nested containers, whatever a safe load would refuse.

    MMEngine's HistoryBuffer becomes a dict of lists, NumPy's arrays tensors and its scalars Python's, a mapping of
    any class a dict. Tensors are detached and on the CPU, without the memory they are views of.

    Args:
        value: What is to be saved.
        name: What the log calls it, should it be left out.

    Returns:
        The plain value. What cannot be made plain becomes None, and the log says so: a run must not end because
        some hook keeps an object of its own.
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
    # Subclasses of Python's types, such as an enum of integers or a named tuple, as what they are based on.
    for base in (int, float, str, tuple, list):
        if isinstance(value, base):
            return to_plain(base(value), name)
    print_log(f'{name} is left out of the checkpoint: a {type(value).__module__}.{type(value).__qualname__} could not '
              'be loaded safely', logger='current', level=logging.WARNING)
    return None


def compact(tensor: Tensor) -> Tensor:
    """The tensor on the CPU; a view of a larger one is copied, because torch would save the whole of that."""
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        return tensor
    whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    return tensor if whole and type(tensor) is Tensor else tensor.as_subclass(Tensor).clone()


def from_plain(value: object) -> object:
    """Undoes :func:`to_plain` for MMEngine's HistoryBuffer, the one class that is needed back."""
    if isinstance(value, Mapping):
        if set(value) == {BUFFER}:
            buffer = value[BUFFER]
            return HistoryBuffer(buffer['history'], buffer['counts'], buffer['max_length'])
        return {k: from_plain(v) for k, v in value.items()}
    return value

"""Finding every way in which a state dict does not fit a model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..wording import listed


def differences(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor],
                may_be_left_over: tuple[str, ...] = ()) -> list[str]:
    """Lists why ``state`` does not fill ``wanted``, one line for each kind; empty if it does.

    Two tensors of one shape that have changed places fill everything: only a checksum of the file shows it.

    Args:
        wanted: The tensors to fill, by name.
        state: The tensors there are, by name.
        may_be_left_over: Names that ``state`` may have beyond ``wanted``; one that ends in '.' or '_' is a prefix.
    """
    prefixes = tuple(name for name in may_be_left_over if name.endswith(('.', '_')))
    both = {k: (state[k], v) for k, v in wanted.items() if k in state}
    alike = {k: pair for k, pair in both.items() if kind_of(pair[0]) == kind_of_number(pair[1])}
    kinds = {
        'missing': [k for k in wanted if k not in state],
        'unexpected': [k for k in state
                       if k not in wanted and k not in may_be_left_over and not k.startswith(prefixes)],
        'misshapen': [f'{k} (file {tuple(theirs.shape)}, config {tuple(ours.shape)})'
                      for k, (theirs, ours) in both.items() if theirs.shape != ours.shape],
        'not of its type': [f'{k} (file {theirs.dtype}, {kind_of(theirs)}; config {ours.dtype})'
                            for k, (theirs, ours) in both.items() if k not in alike],
        # Of the right shape only: a view can claim to be any size.
        'not finite': [k for k, (theirs, ours) in alike.items()
                       if theirs.shape == ours.shape and not torch.isfinite(theirs.to(ours.dtype)).all()],
    }
    return [f'  {kind} ({len(keys)}): {listed(keys)}'
            for kind, keys in kinds.items() if keys]



def kind_of(tensor: Tensor) -> str:
    """Tells apart what copying one tensor to another would not keep: the kind of number, and odd storage."""
    if tensor.is_meta:
        return 'without numbers'
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return 'sparse, quantized or nested'
    return kind_of_number(tensor)


def kind_of_number(tensor: Tensor) -> str:
    """Real, complex or whole numbers: copying from one to another loses what they mean."""
    return 'real' if tensor.is_floating_point() else 'complex' if tensor.is_complex() else 'whole'

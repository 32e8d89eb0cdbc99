"""Finding every way in which a state dict does not fit a model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..wording import listed


def differences(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor],
                may_be_left_over: tuple[str, ...] = ()) -> list[str]:
    """Lists why ``state`` does not fill ``wanted``, one line for each kind of problem.

    Two tensors of one shape that were swapped are not noticed: only a checksum of the file shows that.

    Args:
        wanted: The tensors to fill, by name.
        state: The tensors to fill them with, by name.
        may_be_left_over: Names that ``state`` may have beyond ``wanted``; one that ends in '.' or '_' is a prefix.

    Returns:
        list: The lines; empty if ``state`` fills ``wanted``.
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
        # Only tensors of the right shape are read: an expanded view can claim any size.
        'not finite': [k for k, (theirs, ours) in alike.items()
                       if theirs.shape == ours.shape and not torch.isfinite(theirs.to(ours.dtype)).all()],
    }
    return [f'  {kind} ({len(keys)}): {listed(keys)}'
            for kind, keys in kinds.items() if keys]


def kind_of(tensor: Tensor) -> str:
    """Names what a copy to another tensor would lose: the kind of number, or an odd storage."""
    if tensor.is_meta:
        return 'without numbers'
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return 'sparse, quantized or nested'
    return kind_of_number(tensor)


def kind_of_number(tensor: Tensor) -> str:
    """Returns 'real', 'complex' or 'whole': copying from one kind to another changes what the numbers mean."""
    return 'real' if tensor.is_floating_point() else 'complex' if tensor.is_complex() else 'whole'

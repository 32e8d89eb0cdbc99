"""Finding every way in which a state dict does not fit a model."""

from collections.abc import Mapping

import torch
from torch import Tensor


def differences(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor],
                may_be_left_over: tuple[str, ...] = ()) -> list[str]:
    """Lists why ``state`` does not fill ``wanted``, one line for each kind; empty if it does.

    Args:
        wanted: The tensors to fill, by name.
        state: The tensors there are, by name.
        may_be_left_over: Prefixes of names that ``state`` may have beyond ``wanted``.
    """
    kinds = {
        'missing': [k for k in wanted if k not in state],
        'unexpected': [k for k in state if k not in wanted and not k.startswith(may_be_left_over)],
        'misshapen': [f'{k} (file {tuple(state[k].shape)}, config {tuple(v.shape)})' for k, v in wanted.items()
                      if k in state and state[k].shape != v.shape],
        'not of its type': [f'{k} (file {state[k].dtype}, config {v.dtype})' for k, v in wanted.items()
                            if k in state and kind_of_number(state[k]) != kind_of_number(v)],
        'not finite': [k for k, v in wanted.items() if k in state and not torch.isfinite(state[k].to(v.dtype)).all()],
    }
    return [f'  {kind} ({len(keys)}): {", ".join(keys[:6])}{", ..." if len(keys) > 6 else ""}'
            for kind, keys in kinds.items() if keys]


def kind_of_number(tensor: Tensor) -> tuple[bool, bool]:
    """Tells apart integers, reals and complex numbers: copying from one to another loses what they mean."""
    return tensor.is_floating_point(), tensor.is_complex()

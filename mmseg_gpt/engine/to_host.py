"""Reading numbers from a device, which waits until the device has computed all that was asked of it."""

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor


@torch.no_grad()
def to_host(tensors: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Returns the numbers in tensors, and waits for their device once.

    They travel as float32, or as float64 if one of them is that: Apple's GPUs have no float64. So integers above 2**24
    are rounded.

    Args:
        tensors: The tensors; those of other devices than that of the first go there.
    """
    if not tensors:
        return {}
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()), torch.float32)
    device = next(iter(tensors.values())).device
    together = torch.cat([tensor.reshape(-1).to(device, dtype) for tensor in tensors.values()])
    numbers = iter(together.tolist())
    return {name: [next(numbers) for _ in range(tensor.numel())] for name, tensor in tensors.items()}

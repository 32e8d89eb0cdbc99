"""The periods of DINOv3's rotary positions, which its files hold and its models compute."""

import torch
from torch import Tensor

ROUNDINGS = ('float32', 'bfloat16')
BASE = 100


def rotary_periods(width: int, rounding: str) -> Tensor:
    """Returns the periods of the angles (d/4,) of float32, for heads of width d: 100 ** (4 j / d) for j < d/4.

    Args:
        width: Width d of a head.
        rounding: What the periods are rounded to: 'bfloat16', as DINOv3's own files hold them, or 'float32', as timm
            and transformers compute them.
    """
    exponents = 4 * torch.arange(width // 4, dtype=torch.float32) / width
    return (BASE**exponents).to(getattr(torch, rounding)).float()


def rounding_of(periods: Tensor) -> str | None:
    """Returns what the periods in a file are rounded to; None where that makes no difference.

    Raises:
        ValueError: they are not those of DINOv3.
    """
    found = []
    if periods.ndim == 1 and 0 < len(periods) < 1000 and periods.is_floating_point():  # a view can claim any size
        found = [rounding for rounding in ROUNDINGS if torch.allclose(
            periods.float(), rotary_periods(4 * len(periods), rounding), rtol=1e-5, atol=0)]
    if not found:
        raise ValueError('its rotary periods are not 100 ** (j / n) for j < n, as in DINOv3')
    return found[0] if len(found) == 1 else None

"""Rotary positions of patches, as DINOv3 has them: queries and keys are turned by angles that grow with their place.

Source: arXiv 2104.09864 for rotary positions, arXiv 2508.10104 for two axes and DINOv3.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints.periods import rotary_periods

KEPT: dict[tuple, Tensor] = {}  # see periods_on


class Rotation(NamedTuple):
    """The angles by which queries and keys of one grid of patches are turned, the same in every head and block.

    Attributes:
        cos: Their cosines (h*w, d/2), for heads of width d.
        sin: Their sines (h*w, d/2).
        first: Position of the first patch in the sequence. Tokens before and after the patches are not turned.
    """
    cos: Tensor
    sin: Tensor
    first: int

    def turned(self, x: Tensor) -> Tensor:
        """Returns queries or keys (B, heads, N, d) of which those of patches are turned."""
        patches = slice(self.first, self.first + self.cos.shape[0])
        return torch.cat([x[:, :, :patches.start], self.turn(x[:, :, patches]), x[:, :, patches.stop:]], dim=2)

    def turn_in_place(self, x: Tensor, back: bool = False) -> None:
        """Turns the patches among queries or keys (B, heads, N, d) in place, or turns them back."""
        patches = x[:, :, self.first:self.first + self.cos.shape[0]]
        patches.copy_(self.turn(patches, back))

    def turn(self, patches: Tensor, back: bool = False) -> Tensor:
        """Turns the pairs (i, i + d/2) of numbers of each patch (B, heads, h*w, d), in float32 at least."""
        one, other = patches.chunk(2, dim=-1)
        sin = -self.sin if back else self.sin
        return torch.cat([one * self.cos - other * sin, other * self.cos + one * sin], dim=-1).to(patches.dtype)


def rotation_of(grid: tuple[int, int], periods: Tensor, first: int) -> Rotation:
    """Returns the angles for a grid of patches, whose rows and columns each go from -1 to 1 whatever their number.

    Args:
        grid: Rows and columns (h, w) of the patches.
        periods: What :func:`.checkpoints.periods.rotary_periods` returns; the result has its type and device.
        first: Position of the first patch in the sequence.
    """
    rows, columns = (2 * (torch.arange(n, dtype=torch.float32, device=periods.device) + 0.5) / n - 1 for n in grid)
    places = torch.cartesian_prod(rows, columns).to(periods.dtype)  # (h*w, 2)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1)  # (h*w, d/2), first of rows, then of columns
    return Rotation(angles.cos(), angles.sin(), first)


def periods_on(device: torch.device, dtype: torch.dtype, width: int, rounding: str, kept: bool) -> Tensor:
    """Returns :func:`.checkpoints.periods.rotary_periods` on a device.

    They are computed on the host, as the last bits of a GPU's powers are others.

    Args:
        device: The device.
        dtype: The type that they get.
        width: As of ``rotary_periods``.
        rounding: As of ``rotary_periods``.
        kept: Whether they go to the device once and are kept there, as each copy waits for it.
    """
    key = (device, dtype, width, rounding)
    if kept and key in KEPT:
        return KEPT[key]
    periods = rotary_periods(width, rounding).to(device, dtype)
    if kept and type(periods) is Tensor:  # no FakeTensor
        KEPT[key] = periods
    return periods

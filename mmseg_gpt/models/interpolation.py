"""Gradients of interpolations in torch's deterministic mode, in which CUDA refuses its own kernels for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BILINEAR, BICUBIC = torch.ops.aten.upsample_bilinear2d, torch.ops.aten.upsample_bicubic2d


def resize_bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns ``F.interpolate(x, size, mode='bicubic')``, whose gradient a GPU computes in the deterministic mode too.

    Args:
        x: (b, C, h, w).
        size: Height and width (H, W) of the result (b, C, H, W).
    """
    if x.requires_grad and x.device.type != 'cpu' and torch.are_deterministic_algorithms_enabled():
        return Bicubic.apply(x, size)
    return torch.nn.functional.interpolate(x, size, mode='bicubic', align_corners=False)


class Bicubic(torch.autograd.Function):
    """Bicubic interpolation with :func:`grad_by_products` as its backward: (b, C, h, w) -> (b, C, H, W)."""

    @staticmethod
    def forward(ctx, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.shape = x.shape
        return BICUBIC(x, size, False)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad_by_products(grad, grad.shape[2:], ctx.shape, False, BICUBIC), None


def grad_by_products(grad: Tensor, size: tuple[int, int], small: tuple[int, ...], align_corners: bool,
                      upsample: Callable[..., Tensor] = BILINEAR) -> Tensor:
    """Computes the backward of an interpolation by two products of matrices, as torch's own kernel adds in any order.

    Args:
        grad: Gradient (b, C, H, W) of the result.
        size: Its height and width (H, W).
        small: Shape (b, C, h, w) of what was interpolated.
        align_corners: As in ``F.interpolate``.
        upsample: torch's operation for the interpolation, of rows and columns apart.

    Returns:
        Tensor: The gradient (b, C, h, w), as exact as ``grad``: whatever autocast says, and without TF32.
    """
    rows, columns = (
        upsample(torch.eye(old, dtype=grad.dtype, device=grad.device)[None, None], [new, old], align_corners)[0, 0]
        for old, new in zip(small[2:], size))
    with torch.autocast(grad.device.type, enabled=False), without_tf32():
        by_rows = rows.t() @ grad.permute(0, 2, 3, 1).flatten(2)  # (b, h, W * C)
        by_rows = by_rows.unflatten(2, (size[1], small[1]))
        return (columns.t() @ by_rows).permute(0, 3, 1, 2)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Lets matrix products of float32 be exact on a GPU."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed

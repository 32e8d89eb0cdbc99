"""Cross-entropy of upsampled logits, without ever holding all of the upsampled logits.

A head's logits at 512x512 for 150 classes take 157 MB an image, and as much again for each step of the loss. Here they
are made a few rows at a time, which stay in the cache, and the gradient with respect to the small logits is summed up
in the same pass. The loss is a scalar, so its backward only has to scale that gradient.
"""

import math
import operator
from collections.abc import Iterator
from fractions import Fraction
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..models.interpolation import grad_by_products
from ..models.vit import at_least_float32
from .bands import size_on

# Bytes of upsampled logits at a time: on a CPU as many as fit its cache; on a GPU those of some images, so that the
# time of a kernel hides its launch.
BAND = dict(cpu=8 * 2**20, cuda=512 * 2**20)


def upsampled_cross_entropy(logits: Tensor, labels: Tensor, scale: int | Fraction, ignore_index: int,
                            class_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sums the cross-entropy over all labelled pixels, and counts the correct ones.

    It equals ``F.cross_entropy(F.interpolate(logits, labels.shape[1:], mode='bilinear'), labels, class_weight,
    ignore_index=ignore_index, reduction='sum')``, computed in float32 at least.

    Args:
        logits: Logits (B, C, h, w); fastest in channels_last format.
        labels: Class numbers (B, scale * h, scale * w).
        scale: Factor of the upsampling. A fraction needs bands of as many rows of logits as its denominator.
        ignore_index: Label of ignored pixels.
        class_weight: Factor (C,) of the pixels of each class; None for 1.

    Returns:
        tuple: Two scalars: the loss, and the number of pixels whose label has the highest logit.
    """
    return UpsampledCrossEntropy.apply(logits, labels, scale, ignore_index, class_weight)


class UpsampledCrossEntropy(torch.autograd.Function):
    """Autograd function behind :func:`upsampled_cross_entropy`."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, scale: int | Fraction, ignore_index: int,
                class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        found = []
        for band in upsampled_bands(logits, scale):
            grad = room_for_grad(band)
            found.append(pixelwise(band.pixels[:, band.inner], labels[band.images, band.out], ignore_index,
                                   grad[:, band.inner], class_weight))
            if gradient is not None:
                add_grad(gradient, band, grad)
        loss, correct = (reduce(operator.add, part) for part in zip(*found))
        ctx.gradient = gradient
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, _) -> tuple[Tensor, None, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError('the gradient of upsampled_cross_entropy was already used: it can be asked for once')
        # The loss's gradient gets dimensions, so that torch does not round it to half precision before it multiplies.
        return torch.mul(gradient, grad.view(1, 1, 1, 1), out=gradient), None, None, None, None


class Band(NamedTuple):
    """Some rows of the upsampled logits of one image, or all rows of some images.

    Attributes:
        images: Numbers of the images in the batch.
        rows: Rows of the small logits that it is made of.
        out: Rows of the upsampled logits that it stands for.
        inner: Those rows within ``pixels``, which also has rows of the neighbouring bands.
        pixels: Upsampled logits (b, n, W, C), in float32 at least.
    """
    images: slice
    rows: slice
    out: slice
    inner: slice
    pixels: Tensor


def upsampled_bands(logits: Tensor, scale: int | Fraction) -> Iterator[Band]:
    """Upsamples logits (B, C, h, w) bilinearly, a band at a time."""
    for images, rows, skipped, out in bands(logits, scale):
        small = at_least_float32(logits[images, :, rows])
        size = [int(scale * side) for side in small.shape[2:]]
        # What F.interpolate calls; in torch's deterministic mode that would interpolate by slower operations.
        upsampled = torch.ops.aten.upsample_bilinear2d(small, size, False)
        inner = slice(skipped, skipped + out.stop - out.start)
        yield Band(images, rows, out, inner, upsampled.permute(0, 2, 3, 1))


def room_for_grad(band: Band) -> Tensor:
    """Returns memory (b, n, W, C) for the gradient of a band's pixels: 0 in the rows of the neighbouring bands."""
    alone = band.inner == slice(0, band.pixels.shape[1])
    return torch.empty_like(band.pixels) if alone else torch.zeros_like(band.pixels)


def add_grad(gradient: Tensor, band: Band, grad: Tensor) -> None:
    """Adds to the gradient (B, C, h, w) of small logits what the gradient (b, n, W, C) of a band's pixels gives."""
    place = gradient[band.images, :, band.rows]
    # Seen with its classes in front, it must look like channels_last, for which CUDA has a faster kernel.
    grad = grad.permute(0, 3, 1, 2)
    place += (grad_by_products if grad.is_cuda and torch.are_deterministic_algorithms_enabled() else
              torch.ops.aten.upsample_bilinear2d_backward)(grad, grad.shape[2:], place.shape, False)


def bands(logits: Tensor, scale: int | Fraction) -> Iterator[tuple[slice, slice, int, slice]]:
    """Cuts ``logits`` (B, C, h, w) into bands that can be upsampled independently.

    Upsampled rows lie between the centres of two rows, so neighbouring bands share a row; or as many as make a whole
    number of upsampled rows. Small images go together.

    Yields:
        tuple: The images of a band; its rows; the number of its first upsampled rows to skip, which need the row
        before the band; and the upsampled rows that remain.
    """
    number, channels, height, width = logits.shape
    unit = Fraction(scale).denominator
    unit_bytes = int(scale * unit) * int(scale * width) * channels * max(logits.element_size(), 4)
    step = unit * max(1, size_on(logits.device, BAND) // unit_bytes)
    together = max(1, step // height)
    for image in range(0, number, together):
        end = 0
        for start in range(0, height, step):
            stop, first, begin = min(start + step, height), max(start - unit, 0), end
            # The last of the upsampled rows whose centre is not beyond that of the last row.
            end = int(scale * height) if stop == height else math.ceil(
                scale * Fraction(2 * stop - 1, 2) - Fraction(1, 2))
            yield slice(image, image + together), slice(first, stop), begin - int(scale * first), slice(begin, end)


def pixelwise(logits: Tensor, labels: Tensor, ignore_index: int, gradient: Tensor,
              class_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the summed loss and the number of correct pixels, for logits (..., C) and labels (...).

    Writes the loss's gradient with respect to the logits into ``gradient`` (..., C).
    """
    valid = labels != ignore_index
    target = (labels * valid)[..., None]
    weight = valid if class_weight is None else class_weight[target[..., 0]] * valid
    probability = torch.softmax(logits, -1, out=gradient)
    highest, chosen = logits.amax(-1), logits.gather(-1, target)[..., 0]
    # The highest probability is at least 1 / C, so its logarithm is exact where that of the label's may not be.
    log_sum = highest - probability.amax(-1).log()
    loss = ((log_sum - chosen) * weight).sum()
    correct = ((chosen == highest) & valid).sum()
    probability.scatter_add_(-1, target, logits.new_full((1, ), -1).expand_as(target))
    probability.mul_(weight[..., None])
    return loss, correct

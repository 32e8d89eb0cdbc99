"""Cross-entropy of upsampled logits, without ever holding all of the upsampled logits.

A head's logits at 512x512 for 150 classes take 157 MB an image, and as much again for each step of the loss. Here they
are made a few rows at a time, which stay in the cache, and the gradient with respect to the small logits is summed up
in the same pass. The loss is a scalar, so its backward only has to scale that gradient.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..models.vit import at_least_float32

# Bytes of upsampled logits at a time: on a CPU as many as fit its cache; on a GPU enough to keep it busy.
BAND = dict(cpu=8 * 2**20, cuda=256 * 2**20)


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
        loss = at_least_float32(logits).new_zeros(())
        correct = labels.new_zeros(())
        for band in upsampled_bands(logits, scale):
            # The slope has zeros in the rows that belong to the neighbouring bands.
            slope = torch.zeros_like(band.pixels)
            band_loss, band_correct = pixelwise(band.pixels[band.inner], labels[band.image, band.out], ignore_index,
                                                slope[band.inner], class_weight)
            loss += band_loss
            correct += band_correct
            if gradient is not None:
                add_slope(gradient, band, slope)
        ctx.gradient = gradient
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor, _) -> tuple[Tensor, None, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError('the gradient of upsampled_cross_entropy was already used: it can be asked for once')
        # The slope gets dimensions, so that torch does not round it to half precision before it multiplies.
        return torch.mul(gradient, slope.view(1, 1, 1, 1), out=gradient), None, None, None, None


class Band(NamedTuple):
    """Some rows of the upsampled logits of one image.

    Attributes:
        image: Number of the image in the batch.
        rows: Rows of the small logits that it is made of.
        out: Rows of the upsampled logits that it stands for.
        inner: Those rows within ``pixels``, which also has rows of the neighbouring bands.
        pixels: Upsampled logits (n, W, C), in float32 at least.
    """
    image: int
    rows: slice
    out: slice
    inner: slice
    pixels: Tensor


def upsampled_bands(logits: Tensor, scale: int | Fraction) -> Iterator[Band]:
    """Upsamples logits (B, C, h, w) bilinearly, some rows of one image at a time."""
    for image in range(len(logits)):
        for rows, skipped, out in bands(logits, scale):
            small = at_least_float32(logits[image:image + 1, :, rows])
            size = [int(scale * side) for side in small.shape[2:]]
            upsampled = F.interpolate(small, size, mode='bilinear', align_corners=False)
            inner = slice(skipped, skipped + out.stop - out.start)
            yield Band(image, rows, out, inner, upsampled[0].permute(1, 2, 0))


def add_slope(gradient: Tensor, band: Band, slope: Tensor) -> None:
    """Adds to the gradient (B, C, h, w) of small logits what the slope (n, W, C) of a band's pixels gives."""
    place = gradient[band.image:band.image + 1, :, band.rows]
    place += torch.ops.aten.upsample_bilinear2d_backward(
        slope.permute(2, 0, 1)[None], band.pixels.shape[:2], place.shape, False)


def bands(logits: Tensor, scale: int | Fraction) -> Iterator[tuple[slice, int, slice]]:
    """Cuts the rows of ``logits`` (B, C, h, w) into bands that can be upsampled independently.

    Upsampled rows lie between the centres of two rows, so neighbouring bands share a row; or as many as make a whole
    number of upsampled rows.

    Yields:
        tuple: The rows of a band; the number of its first upsampled rows to skip, which need the row before the band;
        and the upsampled rows that remain.
    """
    channels, height, width = logits.shape[1:]
    unit = Fraction(scale).denominator
    unit_bytes = int(scale * unit) * int(scale * width) * channels * max(logits.element_size(), 4)
    step = unit * max(1, BAND.get(logits.device.type, BAND['cuda']) // unit_bytes)
    end = 0
    for start in range(0, height, step):
        stop, first, begin = min(start + step, height), max(start - unit, 0), end
        # The last of the upsampled rows whose centre is not beyond that of the last row.
        end = int(scale * height) if stop == height else math.ceil(scale * Fraction(2 * stop - 1, 2) - Fraction(1, 2))
        yield slice(first, stop), begin - int(scale * first), slice(begin, end)


def pixelwise(logits: Tensor, labels: Tensor, ignore_index: int, gradient: Tensor,
              class_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns the summed loss and the number of correct pixels, for logits (n, W, C) and labels (n, W).

    Writes the loss's gradient with respect to the logits into ``gradient`` (n, W, C).
    """
    valid = labels != ignore_index
    target = labels.where(valid, 0)[..., None]
    weight = valid if class_weight is None else class_weight[target[..., 0]] * valid
    probability = torch.softmax(logits, 2, out=gradient)
    highest, chosen = logits.amax(2), logits.gather(2, target)[..., 0]
    # The highest probability is at least 1 / C, so its logarithm is exact where that of the label's may not be.
    log_sum = highest - probability.amax(2).log()
    loss = ((log_sum - chosen) * weight).sum()
    correct = ((chosen == highest) & valid).sum()
    probability.scatter_add_(2, target, target.new_full((1, ), -1).to(logits).expand_as(target))
    probability.mul_(weight[..., None])
    return loss, correct

"""Cross-entropy of upsampled logits, without ever holding all of the upsampled logits.

A head's logits at 512x512 for 150 classes take 157 MB an image, and as much again for each step of the loss. Here they
are made a few rows at a time, which stay in the cache, and the gradient with respect to the small logits is summed up
in the same pass. The loss is a scalar, so its backward only has to scale that gradient.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..models.vit import at_least_float32

# Bytes of upsampled logits at a time: on a CPU as many as fit its cache; on a GPU enough to keep it busy.
BAND = dict(cpu=8 * 2**20, cuda=256 * 2**20)


def upsampled_cross_entropy(logits: Tensor, labels: Tensor, scale: int | Fraction,
                            ignore_index: int) -> tuple[Tensor, Tensor]:
    """Sums the cross-entropy over all labelled pixels, and counts the correct ones.

    It equals ``F.cross_entropy(F.interpolate(logits, labels.shape[1:], mode='bilinear'), labels,
    ignore_index=ignore_index, reduction='sum')``, computed in float32 at least.

    Args:
        logits: Logits (B, C, h, w); fastest in channels_last format.
        labels: Class numbers (B, scale * h, scale * w).
        scale: Factor of the upsampling. A fraction needs bands of as many rows of logits as its denominator.
        ignore_index: Label of ignored pixels.

    Returns:
        tuple: Two scalars: the loss, and the number of pixels whose label has the highest logit.
    """
    return UpsampledCrossEntropy.apply(logits, labels, scale, ignore_index)


class UpsampledCrossEntropy(torch.autograd.Function):
    """Autograd function behind :func:`upsampled_cross_entropy`."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, scale: int | Fraction,
                ignore_index: int) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        loss = at_least_float32(logits).new_zeros(())
        correct = labels.new_zeros(())
        for image in range(len(logits)):
            for rows, skipped, out in bands(logits, scale):
                small = at_least_float32(logits[image:image + 1, :, rows])
                size = [int(scale * side) for side in small.shape[2:]]
                upsampled = F.interpolate(small, size, mode='bilinear', align_corners=False)
                pixels = upsampled[0].permute(1, 2, 0)  # (n, W, C)
                # The slope has zeros in the rows that belong to the neighbouring bands.
                slope = torch.zeros_like(pixels)
                inner = slice(skipped, skipped + out.stop - out.start)
                band_loss, band_correct = pixelwise(pixels[inner], labels[image, out], ignore_index, slope[inner])
                loss += band_loss
                correct += band_correct
                if gradient is not None:
                    gradient[image:image + 1, :, rows] += torch.ops.aten.upsample_bilinear2d_backward(
                        slope.permute(2, 0, 1)[None], size, small.shape, False)
        ctx.gradient = gradient
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor, _) -> tuple[Tensor, None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError('the gradient of upsampled_cross_entropy was already used: it can be asked for once')
        # The slope gets dimensions, so that torch does not round it to half precision before it multiplies.
        return torch.mul(gradient, slope.view(1, 1, 1, 1), out=gradient), None, None, None


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


def pixelwise(logits: Tensor, labels: Tensor, ignore_index: int, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the summed loss and the number of correct pixels, for logits (n, W, C) and labels (n, W).

    Writes the loss's gradient with respect to the logits into ``gradient`` (n, W, C).
    """
    valid = labels != ignore_index
    target = labels.where(valid, 0)[..., None]
    probability = torch.softmax(logits, 2, out=gradient)
    highest, chosen = logits.amax(2), logits.gather(2, target)[..., 0]
    # The highest probability is at least 1 / C, so its logarithm is exact where that of the label's may not be.
    log_sum = highest - probability.amax(2).log()
    loss = ((log_sum - chosen) * valid).sum()
    correct = ((chosen == highest) & valid).sum()
    probability.scatter_add_(2, target, target.new_full((1, ), -1).to(logits).expand_as(target))
    probability.mul_(valid[..., None])
    return loss, correct

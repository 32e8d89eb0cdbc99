"""Dice losses in which ignored pixels do not count, also of upsampled logits that are never held as a whole."""

from fractions import Fraction

import torch
from mmseg.models.losses import DiceLoss
from mmseg.models.losses.utils import weight_reduce_loss
from mmseg.registry import MODELS
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..models.vit import at_least_float32
from .cross_entropy import add_grad, room_for_grad, upsampled_bands


@MODELS.register_module()
class ClassDiceLoss(DiceLoss):
    """Dice loss of each class, averaged over the classes that are in the labels of an image, then over images.

    mmsegmentation's DiceLoss takes one sum over all classes, in which frequent classes outweigh rare ones: a model that
    finds nothing of a class with 1 % of the pixels has a loss of 0.01. Here it has half of the highest loss, where
    there are two classes. The coefficient of a class is that of V-Net (arXiv 1606.04797, section 3), as in
    mmsegmentation: ``2 * sum(p * y) / (sum(p ** 2) + sum(y ** 2) + 2 * eps)`` over the labelled pixels of an image,
    with the softmax ``p`` and labels ``y`` of 0 or 1. The loss of an image without labelled pixels is 0.

    Args:
        naive_dice: Take ``(2 * sum(p * y) + eps) / (sum(p) + sum(y) + eps)`` instead.
        loss_weight: Factor of the loss.
        eps: Number that keeps the divisor above 0.
        loss_name: Name of the loss in logs; it must begin with ``loss_``.
    """

    def __init__(self, naive_dice: bool = False, loss_weight: float = 1., eps: float = 1e-3,
                 loss_name: str = 'loss_dice') -> None:
        super().__init__(use_sigmoid=False, naive_dice=naive_dice, loss_weight=loss_weight, eps=eps,
                         loss_name=loss_name)

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, avg_factor: float | None = None,
                reduction_override: str | None = None, ignore_index: int = 255, **_) -> Tensor:
        """Computes the loss.

        Args:
            pred: Logits (B, C, H, W), of two classes or more.
            target: Class numbers (B, H, W).
            weight: Factor (B,) of each image.
            avg_factor: Number by which a mean divides the sum over images.
            reduction_override: 'none', 'mean' or 'sum' over images, in place of 'mean'.
            ignore_index: Label of ignored pixels.
        """
        sums = upsampled_overlaps(pred, target, 1, ignore_index, 1 if self.naive_dice else 2)
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(self.of_overlaps(sums), weight, reduction, avg_factor)

    def of_overlaps(self, sums: Tensor) -> Tensor:
        """Returns the loss (B,) of each image from its :func:`upsampled_overlaps` (B, 3, C)."""
        present = sums[:, 2] > 0
        return ((1 - coefficient(sums, self)) * present).sum(1) / present.sum(1).clamp(min=1)


def coefficient(sums: Tensor, loss: DiceLoss) -> Tensor:
    """Returns the Dice coefficients (B, ...) of sums (B, 3, ...), by the formula and the ``eps`` of a loss."""
    both, predicted, labelled = sums.unbind(1)
    if loss.naive_dice:
        return (2 * both + loss.eps) / (predicted + labelled + loss.eps)
    return 2 * both / (predicted + labelled + 2 * loss.eps)


def upsampled_dice(loss: DiceLoss, logits: Tensor, labels: Tensor, scale: int | Fraction,
                   ignore_index: int) -> Tensor:
    """Returns what ``loss`` gives for upsampled logits: that of mmsegmentation with softmax, or ours.

    Args:
        loss: The loss, whose options are followed.
        logits: Logits (B, C, h, w).
        labels: Class numbers (B, scale * h, scale * w).
        scale: Factor of the bilinear upsampling.
        ignore_index: Label of ignored pixels.
    """
    sums = upsampled_overlaps(logits, labels, scale, ignore_index, 1 if loss.naive_dice else 2)
    each = loss.of_overlaps(sums) if isinstance(loss, ClassDiceLoss) else 1 - coefficient(sums.sum(2), loss)
    return loss.loss_weight * each.mean()


def upsampled_overlaps(logits: Tensor, labels: Tensor, scale: int | Fraction, ignore_index: int,
                       power: int = 2) -> Tensor:
    """Sums over the labelled pixels of each image what Dice coefficients are made of.

    The logits are upsampled bilinearly, a few rows at a time; the backward upsamples them again.

    Args:
        logits: Logits (B, C, h, w); fastest in channels_last format.
        labels: Class numbers (B, scale * h, scale * w).
        scale: Factor of the upsampling, as of :func:`.upsampled_cross_entropy`.
        ignore_index: Label of ignored pixels.
        power: Power of the probabilities in the second sum, 1 or 2.

    Returns:
        Tensor: (B, 3, C), in float32 at least. For each class: the sum of its probability over the pixels of its
        label, that of the probability's power over all labelled pixels, and the number of pixels of its label.
    """
    return UpsampledOverlaps.apply(logits, labels, scale, ignore_index, power)


class UpsampledOverlaps(torch.autograd.Function):
    """Autograd function behind :func:`upsampled_overlaps`."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, scale: int | Fraction, ignore_index: int, power: int) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.options = scale, ignore_index, power
        sums = at_least_float32(logits).new_zeros(len(logits), 3, logits.shape[1])
        for band in upsampled_bands(logits, scale):
            p, hit = probabilities(band.pixels[:, band.inner], labels[band.images, band.out], ignore_index)
            for place, each in zip(sums[band.images].unbind(1), (p * hit, p**power, hit)):
                place += each.sum((1, 2))
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels = ctx.saved_tensors
        scale, ignore_index, power = ctx.options
        gradient = torch.zeros_like(logits)
        for band in upsampled_bands(logits, scale):
            p, hit = probabilities(band.pixels[:, band.inner], labels[band.images, band.out], ignore_index)
            of_both, of_predicted, _ = grads[band.images, :, None, None].unbind(1)
            of_p = of_both * hit + of_predicted * power * p**(power - 1)
            grad = room_for_grad(band)
            grad[:, band.inner] = p * (of_p - (p * of_p).sum(-1, keepdim=True))
            add_grad(gradient, band, grad)
        return gradient, None, None, None, None


def probabilities(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Returns the softmax of logits (..., C) and the one-hot labels, both (..., C) and 0 where labels are ignored."""
    valid = (labels != ignore_index)[..., None]
    target = labels[..., None] * valid
    return logits.softmax(-1) * valid, torch.zeros_like(logits).scatter_(-1, target, valid.to(logits))

"""The loss of a decode head whose logits are smaller than its labels, without the upsampled logits as a whole."""

from fractions import Fraction

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss, DiceLoss
from torch import Tensor, nn

from .cross_entropy import upsampled_cross_entropy
from .dice import ClassDiceLoss, upsampled_dice


def upsampled_loss(head: BaseDecodeHead, logits: Tensor, labels: Tensor,
                   scale: int | Fraction) -> dict[str, Tensor] | None:
    """Returns what ``head.loss_by_feat`` would, computed in bands of rows; None where the numbers would be others.

    They would with ``align_corners``, a pixel sampler, labels that are not ``scale`` times the logits, or losses of
    which :func:`goes_in_bands` says no. In the accuracy, a label that shares the highest logit with another class
    counts as correct.

    Args:
        head: Whose options to follow.
        logits: Of shape (B, C, h, w).
        labels: Integers of shape (B, H, W).
        scale: By how much to upsample the logits, bilinearly.
    """
    if head.align_corners or head.sampler is not None or not goes_in_bands(head):
        return None
    if labels.shape[1:] != (scale * logits.shape[2], scale * logits.shape[3]):
        return None
    found: dict[str, Tensor] = {}
    for loss in losses_of(head):
        if isinstance(loss, DiceLoss):
            value = upsampled_dice(loss, logits, labels, scale, head.ignore_index)
        else:
            value, correct = mean_cross_entropy(loss, logits, labels, scale, head.ignore_index)
        found[loss.loss_name] = found[loss.loss_name] + value if loss.loss_name in found else value
    eps = torch.finfo(torch.float32).eps  # as in mmsegmentation, for labels that are all ignored
    labelled = (labels != head.ignore_index).sum().to(value)
    return {**found, 'acc_seg': 100 * (correct + eps) / (labelled + eps)}


def mean_cross_entropy(loss: CrossEntropyLoss, logits: Tensor, labels: Tensor, scale: int | Fraction,
                       ignore_index: int) -> tuple[Tensor, Tensor]:
    """Returns what ``loss`` gives for upsampled logits, and the number of correct pixels."""
    weights = class_weights(loss, logits)
    total, correct = upsampled_cross_entropy(logits, labels, scale, ignore_index, weights)
    if weights is None and not loss.avg_non_ignore:
        divisor = labels.numel()
    else:
        labelled = labels != ignore_index
        divisor = labelled.sum() if weights is None else (weights[labels * labelled] * labelled).sum()
        if not loss.avg_non_ignore:
            divisor = divisor + (~labelled).sum()
        divisor = divisor.to(total)
    return loss.loss_weight * total / (divisor + torch.finfo(torch.float32).eps), correct


def class_weights(loss: CrossEntropyLoss, logits: Tensor) -> Tensor | None:
    """Returns the weights (C,) of classes, in float32 at least; None if there are none.

    They stay on the device, which would else be waited for in every iteration.
    """
    if loss.class_weight is None:
        return None
    dtype, kept = torch.promote_types(logits.dtype, torch.float32), getattr(loss, 'kept_weights', None)
    if kept is None or (kept.dtype, kept.device) != (dtype, logits.device):
        loss.kept_weights = kept = torch.tensor(loss.class_weight, dtype=dtype, device=logits.device)
    return kept


def losses_of(head: BaseDecodeHead) -> list[nn.Module]:
    """Returns the losses of a head, one or several."""
    return list(head.loss_decode) if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def goes_in_bands(head: BaseDecodeHead) -> bool:
    """Returns whether all losses of a head can be computed in bands of rows.

    There must be a cross-entropy among them, which counts the correct pixels too; others may be Dice losses.
    """
    losses = losses_of(head)
    return (any(is_cross_entropy(loss) for loss in losses)
            and all(is_cross_entropy(loss) or is_softmax_dice(loss, head.out_channels) for loss in losses))


def is_cross_entropy(loss: nn.Module) -> bool:
    """Returns whether ``loss`` is the mean over pixels of softmax cross-entropy, with weights of classes or without."""
    return type(loss) is CrossEntropyLoss and not loss.use_sigmoid and not loss.use_mask and loss.reduction == 'mean'


def is_softmax_dice(loss: nn.Module, channels: int) -> bool:
    """Returns whether ``loss`` is a mean over images of a Dice loss of the softmax, with all classes in it."""
    return type(loss) is ClassDiceLoss or (
        type(loss) is DiceLoss and not loss.use_sigmoid and loss.activate and channels > 1 and loss.reduction == 'mean'
        and (loss.ignore_index is None or not 0 <= loss.ignore_index < channels))

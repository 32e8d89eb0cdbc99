"""The loss of a decode head whose logits are smaller than its labels, without the upsampled logits as a whole."""

from fractions import Fraction

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from .cross_entropy import upsampled_cross_entropy


def upsampled_loss(head: BaseDecodeHead, logits: Tensor, labels: Tensor,
                   scale: int | Fraction) -> dict[str, Tensor] | None:
    """Returns what ``head.loss_by_feat`` would, computed in bands of rows; None where the numbers would be others.

    They would with ``align_corners``, a pixel sampler, labels that are not ``scale`` times the logits, or another loss
    than one plain cross-entropy. In the accuracy, a label that shares the highest logit with another class counts as
    correct.

    Args:
        head: Whose options to follow.
        logits: Of shape (B, C, h, w).
        labels: Integers of shape (B, H, W).
        scale: By how much to upsample the logits, bilinearly.
    """
    if head.align_corners or head.sampler is not None or not is_plain_cross_entropy(head.loss_decode):
        return None
    if labels.shape[1:] != (scale * logits.shape[2], scale * logits.shape[3]):
        return None
    total, correct = upsampled_cross_entropy(logits, labels, scale, head.ignore_index)
    labelled = (labels != head.ignore_index).sum().to(total)
    pixels = labelled if head.loss_decode.avg_non_ignore else labels.numel()
    eps = torch.finfo(torch.float32).eps  # as in mmsegmentation, for labels that are all ignored
    return {
        head.loss_decode.loss_name: head.loss_decode.loss_weight * total / (pixels + eps),
        'acc_seg': 100 * (correct + eps) / (labelled + eps),
    }


def is_plain_cross_entropy(loss: nn.Module) -> bool:
    """Returns whether ``loss`` is the mean over pixels of softmax cross-entropy, each class with the same weight."""
    return (type(loss) is CrossEntropyLoss and not loss.use_sigmoid and not loss.use_mask
            and loss.class_weight is None and loss.reduction == 'mean')

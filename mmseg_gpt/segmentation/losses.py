"""mmsegmentation's losses, mended where the weights of classes, ignored pixels or a CPU make them fail."""

import torch.nn.functional as F
from mmengine.utils.dl_utils import mmcv_full_available
from mmseg.models.losses import DiceLoss, FocalLoss, cross_entropy_loss, dice_loss
from mmseg.models.losses.focal_loss import py_sigmoid_focal_loss
from torch import Tensor

CROSS_ENTROPY, BINARY = cross_entropy_loss.cross_entropy, cross_entropy_loss.binary_cross_entropy
FOCAL, DICE = FocalLoss.forward, DiceLoss.forward


def cross_entropy(pred: Tensor, label: Tensor, weight: Tensor | None = None, class_weight: Tensor | None = None,
                  reduction: str = 'mean', avg_factor: float | None = None, ignore_index: int = -100,
                  avg_non_ignore: bool = False) -> Tensor:
    """Computes mmsegmentation's cross-entropy; with ``class_weight`` pixels may be ignored too.

    The mean is then over the weights of the labelled pixels, as in PyTorch. Without ``avg_non_ignore`` each ignored
    pixel counts 1 in it, as it does without ``class_weight``. mmsegmentation 1.2.2 looks for the weight of class 255.

    Args:
        pred: Logits (N, C, ...).
        label: Class numbers (N, ...).
        weight: Of each pixel.
        class_weight: Of each class (C,).
        reduction: 'none', 'mean' or 'sum'.
        avg_factor: What a mean divides the sum by; None for what is said above.
        ignore_index: Label of ignored pixels.
        avg_non_ignore: Whether ignored pixels are left out of what a mean divides by.
    """
    if class_weight is not None and avg_factor is None and reduction == 'mean':
        labelled = label != ignore_index
        avg_factor = class_weight[label[labelled]].sum()
        if not avg_non_ignore:
            avg_factor = avg_factor + (~labelled).sum()
    return CROSS_ENTROPY(pred, label, weight, class_weight, reduction, avg_factor, ignore_index, avg_non_ignore)


def binary_cross_entropy(pred: Tensor, label: Tensor, weight: Tensor | None = None, reduction: str = 'mean',
                         avg_factor: float | None = None, class_weight: Tensor | None = None, **options) -> Tensor:
    """Computes mmsegmentation's binary cross-entropy, with ``class_weight`` (C,) along the classes.

    mmsegmentation 1.2.2 weights the columns of the image instead, where it does not fail.

    Args:
        pred: Logits (N, C, ...).
        label: Class numbers (N, ...).
        weight: Of each pixel.
        reduction: 'none', 'mean' or 'sum'.
        avg_factor: What a mean divides the sum by.
        class_weight: Of each class (C,): how much its pixels count against all others.
        **options: As in mmsegmentation.
    """
    if class_weight is not None and pred.size(1) > 1:
        class_weight = class_weight.view(-1, *[1] * (pred.dim() - 2))
    return BINARY(pred, label, weight, reduction, avg_factor, class_weight, **options)


def focal_loss(self: FocalLoss, pred: Tensor, target: Tensor, weight: Tensor | None = None,
               avg_factor: float | None = None, reduction_override: str | None = None, ignore_index: int = 255,
               **options) -> Tensor:
    """Computes FocalLoss of class numbers where mmcv has no kernel for it: on a CPU, or with mmcv-lite.

    There mmsegmentation 1.2.2 takes the last column of the one-hot labels for all of them, and fails.

    Args:
        self: The loss.
        pred: Logits (N, C, ...).
        target: Class numbers (N, ...), or probabilities (N, C, ...), which are left to mmsegmentation.
        weight: Of each pixel.
        avg_factor: What a mean divides the sum by.
        reduction_override: Replaces the loss's own reduction.
        ignore_index: Label of ignored pixels.
        **options: As in mmsegmentation.
    """
    if pred.shape == target.shape or (pred.is_cuda and mmcv_full_available()):
        return FOCAL(self, pred, target, weight, avg_factor, reduction_override, ignore_index, **options)
    classes, reduction = pred.size(1), reduction_override or self.reduction
    labelled = target != ignore_index
    one_hot = F.one_hot(target.where(labelled, 0), max(classes, 2))[..., -classes:]
    loss = self.loss_weight * py_sigmoid_focal_loss(
        pred.movedim(1, -1).reshape(-1, classes), one_hot.reshape(-1, classes),
        weight=None if weight is None else weight.reshape(-1, 1), gamma=self.gamma, alpha=self.alpha,
        class_weight=self.class_weight, valid_mask=labelled.reshape(-1, 1), reduction=reduction, avg_factor=avg_factor)
    return loss.view(*target.shape, classes).movedim(-1, 1) if reduction == 'none' else loss


def labelled_dice_loss(self: DiceLoss, pred: Tensor, target: Tensor, weight: Tensor | None = None,
                       avg_factor: float | None = None, reduction_override: str | None = None, ignore_index: int = 255,
                       **options) -> Tensor:
    """Computes mmsegmentation's DiceLoss over the labelled pixels only.

    mmsegmentation 1.2.2 adds what is predicted in ignored pixels to the divisor, and so teaches the model to be unsure
    there.

    Args:
        self: The loss.
        pred: Logits (N, C, H, W).
        target: Class numbers (N, H, W), or probabilities (N, C, H, W), which are left to mmsegmentation.
        weight: Of each image.
        avg_factor: What a mean divides the sum by.
        reduction_override: Replaces the loss's own reduction.
        ignore_index: Label of ignored pixels.
        **options: As in mmsegmentation.
    """
    if pred.shape == target.shape:
        return DICE(self, pred, target, weight, avg_factor, reduction_override, ignore_index, **options)
    labelled = (target != ignore_index)[:, None]
    one_hot = dice_loss._expand_onehot_labels_dice(pred, target) * labelled
    if self.activate:
        pred = pred.sigmoid() if self.use_sigmoid else pred.softmax(1) if pred.shape[1] > 1 else pred
    return self.loss_weight * dice_loss.dice_loss(
        pred * labelled, one_hot, weight, self.eps, reduction_override or self.reduction, self.naive_dice, avg_factor,
        self.ignore_index)


def mend_losses() -> None:
    """Puts these functions in the place of mmsegmentation's. They can go when its own (1.2.2 here) do the same."""
    cross_entropy_loss.cross_entropy, cross_entropy_loss.binary_cross_entropy = cross_entropy, binary_cross_entropy
    FocalLoss.forward, DiceLoss.forward = focal_loss, labelled_dice_loss


mend_losses()

"""What the scores of the classes of pixels say: the class, and how sure it is."""

import torch
from torch import Tensor, nn


def scores_of(logits: Tensor) -> Tensor:
    """Returns what :func:`labels_of` takes, for logits (n, W, C): the same, or of a single channel its probability."""
    return logits.sigmoid() if logits.shape[2] == 1 else logits


def threshold_of(head: nn.Module) -> float | None:
    """Returns the probability above which a head's single channel is foreground; None of several channels."""
    return head.threshold if getattr(head, 'out_channels', None) == 1 else None  # a cascade of heads has none


def labels_of(scores: Tensor, threshold: float | None = None) -> Tensor:
    """Returns the labels (n, W) of scores (n, W, C): the class with the highest one, the first of equal ones.

    Args:
        scores: Logits or probabilities; of a single channel, its probability.
        threshold: The probability above which a single channel is labelled, then with True.
    """
    if scores.shape[2] == 1:
        return scores.squeeze(2) > threshold
    return scores.max(2).indices  # faster than argmax on a CPU, and also the first of equal ones


def confidence_of(highest: Tensor, threshold: float | None = None) -> Tensor:
    """Returns the probability of the class that a pixel was given, as uint8 on the CPU, of which 255 is 1.

    Args:
        highest: The highest probability of each pixel, of any shape.
        threshold: Of a single channel, which holds the probability of the foreground, that above which it is labelled.
    """
    highest = highest if threshold is None else torch.where(highest > threshold, highest, 1 - highest)
    return (255 * highest.float()).round().byte().cpu()

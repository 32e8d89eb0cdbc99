"""What a segmentation head can be trained by, and weights for classes with few pixels."""

from collections.abc import Sequence

import numpy as np

LOSSES = {
    'ce': 'cross-entropy of each pixel',
    'ce+dice': 'cross-entropy, and the Dice loss of each class in an image, in which rare classes count as much',
}


def class_weights(pixels: Sequence[int], cap: float = 10.) -> list[float]:
    """Returns how much the pixels of each class count, by median frequency balancing.

    The weight is ``median(n) / n`` for a class with ``n`` pixels, and at most ``cap`` and at least ``1 / cap``, so that
    a handful of pixels does not outweigh all others. The median is over the classes that occur; one that does not
    occur has weight 1. Source: section 6.3.2 of arXiv 1411.4734, which counts the pixels of a class against those of
    the images it is in, and has no limits; here they are counted against all.

    Args:
        pixels: Number of labelled pixels (C,) of each class in the training images.
        cap: Largest weight, 1 or more.

    Raises:
        ValueError: no class has a pixel, or ``cap`` is below 1.
    """
    counts = np.asarray(pixels, float)
    if cap < 1 or not (counts > 0).any():
        raise ValueError(f'class weights need pixels of some class and a cap of 1 or more, got {pixels} and {cap}')
    weights = np.median(counts[counts > 0]) / np.where(counts > 0, counts, np.nan)
    return [round(float(weight), 4) for weight in np.nan_to_num(weights, nan=1.).clip(1 / cap, cap)]


def loss_settings(name: str, weights: Sequence[float] | None = None, loss_weight: float = 1.) -> dict | list[dict]:
    """Returns the ``loss_decode`` of a head; ignored pixels count in none of its losses.

    The head must come from a config that imports ``mmseg_gpt.segmentation``.

    Args:
        name: One of :data:`LOSSES`.
        weights: Weight (C,) of each class in the cross-entropy, as from :func:`class_weights`; None for 1. The Dice
            loss balances classes by itself.
        loss_weight: Factor of all losses: 1 for a decode head, 0.4 for an auxiliary head.

    Raises:
        ValueError: there is no such loss.
    """
    if name not in LOSSES:
        raise ValueError(f'there is no loss {name!r}; there are {", ".join(LOSSES)}')
    cross_entropy = dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=loss_weight)
    if weights is not None:
        cross_entropy['class_weight'] = list(weights)
    return [cross_entropy, dict(type='ClassDiceLoss', loss_weight=loss_weight)] if name == 'ce+dice' else cross_entropy

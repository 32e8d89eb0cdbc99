"""How a linear layer is trained on the pooled features of a ViT, in classification: the paper's way, and the usual one.

The paper tuned its learning rates for MAE and MoCo v3, and starts the head with large weights. Features of later ViTs
are larger (a standard deviation of 2.3 was measured for a DINOv2, and first losses of 30 to 60 where the logarithm of
the number of classes would be 2.8), and its rates are beyond what they bear. For these the features are normalised by a
batch norm without weights of its own, as in the linear protocol of MAE (arXiv 2111.06377, A.1), and the head starts
near zero, as in those of MAE and DINOv2.
"""

import math
from typing import NamedTuple


class Protocol(NamedTuple):
    """The training of a linear layer, and of what adapts the ViT below it.

    Attributes:
        init: How the layer starts: an ``init_cfg``.
        optimizer: Settings of the optimizer in place of the schedule's, but for the learning rate; empty for SGD with
            momentum as in the schedule.
        normalised: Whether the features pass a batch norm without weights.
        lr: The learning rate; None means that of the task in Table 5 of the paper.
        full_lr: The learning rate where all of the ViT is trained.
    """
    init: dict
    optimizer: dict
    normalised: bool
    lr: float | None
    full_lr: float


PROTOCOLS = {
    # The authors': weights of variance 2 / classes, and a bias at which each class has a sigmoid of 0.01. The rate of
    # full fine-tuning is not from the paper, whose rates are for frozen ViTs.
    'paper': Protocol(
        dict(type='Kaiming', layer='Linear', mode='fan_out', distribution='normal', bias=-math.log(99)),
        dict(), normalised=False, lr=None, full_lr=0.01),
    # Of Flowers-17 with features of a ViT-S/14, every rate from 1e-3 to 1e-2 learnt well. Neither rate was searched.
    'normalised': Protocol(
        dict(type='Normal', layer='Linear', std=0.01),
        dict(_delete_=True, type='AdamW', weight_decay=0.01), normalised=True, lr=3e-3, full_lr=3e-5),
}
# What a search tries by default, by the optimizer of a config. Those of SGD are of section A.2 of the paper.
RATES = {'SGD': (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0), 'AdamW': (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}

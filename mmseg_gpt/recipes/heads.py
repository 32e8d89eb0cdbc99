"""The table of segmentation heads: how each one is called, its config, and when to take it."""

from typing import NamedTuple


class Head(NamedTuple):
    """A decode head, with the auxiliary heads and the neck that go with it.

    Attributes:
        title: The name in texts.
        file: The file in ``configs/_base_/heads``, without its suffix.
        when: When to take it, in one sentence.
    """
    title: str
    file: str
    when: str


HEADS = {
    'linear': Head('Linear', 'linear', 'The first choice on DINOv2 and DINOv3: the fastest and smallest, and the '
                   'protocol by which they are compared.'),
    'linear-4': Head('Linear, four blocks', 'linear_4', 'If the linear head comes close but underfits: it also sees '
                     'what the three blocks before the last one hold, at nearly the same cost.'),
    'segmenter': Head('Segmenter', 'segmenter', 'If a linear head underfits: patches and classes attend to each other, '
                      'at the resolution of the patches.'),
    'setr-pup': Head('SETR-PUP', 'setr_pup', 'To reproduce the paper: convolutions on three or four blocks make a '
                     'finer map, at a cost above that of a ViT-S.'),
    'upernet': Head('UPerNet', 'upernet', 'For MAE, BEiT and supervised ViTs, and for small objects, where its cost '
                    'does not matter: a pyramid of four blocks, as in the papers of MAE and BEiT.'),
}

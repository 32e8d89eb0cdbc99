"""The table of segmentation heads: the files in ``configs/_base_/heads``, by name, and when to take each."""

from typing import NamedTuple


class Head(NamedTuple):
    """A decode head, with the auxiliary heads and the neck that go with it.

    Attributes:
        title: The name in texts.
        when: When to take it, in one sentence.
    """
    title: str
    when: str


HEADS = {
    'linear': Head('Linear', 'The first choice on DINOv2 and DINOv3: the cheapest and smallest, and the protocol by '
                   'which they are compared.'),
    'linear_4': Head('Linear on four blocks', 'If the linear head underfits: nearly as cheap, and it also sees what '
                     'the three blocks before the last one hold.'),
    'segmenter': Head('Segmenter', 'If a linear head underfits and time is short: patches and classes attend to each '
                      'other, at the resolution of the patches.'),
    'setr_pup': Head('SETR-PUP', 'To reproduce the paper: convolutions make a finer map of three or four blocks, in '
                     'more time than a ViT-S takes.'),
    'upernet': Head('UPerNet', 'For MAE, BEiT and supervised ViTs, as in their papers, and where small objects count '
                    'and cost does not: a pyramid of four blocks.'),
}

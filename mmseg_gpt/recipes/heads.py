"""The table of segmentation heads: the files in ``configs/_base_/heads``, by name, and when to take each."""

from collections.abc import Mapping
from typing import NamedTuple

from mmengine.config import Config

from ..resources import CONFIGS


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


def segmentor(head: str, backbone: Mapping, classes: int, crop: int, preprocessor: Mapping, whole: bool = True) -> dict:
    """Returns the settings of a segmentor, from which widths follow; see :mod:`mmseg_gpt.models.complete`.

    Args:
        head: One of ``HEADS``.
        backbone: Settings of the ViT beside those that the head asks for.
        classes: How many there are.
        crop: Side of the crops in training, in pixels.
        preprocessor: Settings of the data preprocessor beside the usual ones.
        whole: Whether images are evaluated as a whole, and not in windows of the size of a crop.
    """
    base = Config.fromfile(CONFIGS / f'_base_/heads/{head}.py').model.to_dict()
    parts = {name: base.pop(name) for name in ('type', 'data_preprocessor', 'backbone')}
    base.update(train_cfg=dict(), test_cfg=dict(mode='whole' if whole else 'slide'))
    return dict(
        type=parts['type'], num_classes=classes, crop_size=(crop, crop),
        data_preprocessor=parts['data_preprocessor'] | preprocessor, backbone=parts['backbone'] | backbone, **base)

"""A linear classifier of patch features, by which DINOv2 and DINOv3 measure what a frozen ViT has learnt."""

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from .lean_head import LeanHead


@MODELS.register_module()
class LinearHead(LeanHead, BaseDecodeHead):
    """Batch norm and a 1x1 convolution on patch features; the logits are upsampled bilinearly.

    Source: section 7.4 of arXiv 2304.07193, whose ``BNHead`` has the same parameters, ``bn`` and ``conv_seg``. The
    features belong after the ViT's final norm: ``backbone.out_type='normed_featmap'``, which norms each block that is
    read. Those of several blocks are concatenated with ``input_transform='resize_concat'``.

    Args:
        options: As BaseDecodeHead's, with ``norm_cfg``; ``channels`` must equal ``in_channels``, or their sum.

    Raises:
        ValueError: ``channels`` is another number.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        if self.channels != self.in_channels:
            raise ValueError(f'LinearHead has no layer that would change {self.in_channels} channels to '
                             f'channels={self.channels}: make them the same')
        self.bn = build_norm_layer(self.norm_cfg, self.channels)[1]

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Scores each patch of the features (B, D, h, w) in ``inputs`` -> logits (B, C, h, w)."""
        return self.cls_seg(self.bn(self._transform_inputs(inputs)))

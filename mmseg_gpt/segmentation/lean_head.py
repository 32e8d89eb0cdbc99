"""Decode heads of mmsegmentation with less time and memory; options, parameters and results are mmsegmentation's."""

from fractions import Fraction

import torch
from mmseg.models.decode_heads import FCNHead, SegmenterMaskTransformerHead, UPerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from .upsampled_loss import upsampled_loss


class LeanHead:
    """Computes the loss of a decode head whose logits are smaller than its labels in bands of rows.

    It stands before a decode head among the bases of a class. Logits are in the order of the ViT's tokens, which torch
    calls channels_last: in it the loss takes a third of the time, and so does evaluation. Where bands would not give
    the same numbers, see :func:`upsampled_loss`, the loss is computed as in mmsegmentation. In the accuracy, a label
    that shares the highest logit with another class counts as correct.
    """

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Returns logits (B, C, h, w) in channels_last format; arguments as in mmsegmentation."""
        return super().forward(inputs).contiguous(memory_format=torch.channels_last)

    def loss(self, inputs: tuple[Tensor, ...], batch_data_samples: list, train_cfg: dict) -> dict[str, Tensor]:
        """Returns the loss, and the pixel accuracy in percent, of a batch; arguments and keys as in mmsegmentation."""
        logits = self.forward(inputs)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        return (upsampled_loss(self, logits, labels, Fraction(labels.shape[1], logits.shape[2]))
                or self.loss_by_feat(logits, batch_data_samples))


@MODELS.register_module()
class LeanUPerHead(LeanHead, UPerHead):
    """UPerHead of mmsegmentation (arXiv 1807.10221) as a :class:`LeanHead`."""


@MODELS.register_module()
class LeanFCNHead(LeanHead, FCNHead):
    """FCNHead of mmsegmentation (arXiv 1411.4038) as a :class:`LeanHead`."""


@MODELS.register_module()
class LeanSegmenterMaskTransformerHead(LeanHead, SegmenterMaskTransformerHead):
    """SegmenterMaskTransformerHead of mmsegmentation (arXiv 2105.05633) as a :class:`LeanHead`.

    Patches and one token for each class attend to each other; a patch's logits are its cosines with the classes. The
    features belong after the ViT's final norm: ``backbone.out_type='normed_featmap'``. Attention uses torch's fused
    kernels, where mmsegmentation keeps the weights of all pairs of tokens.

    Args:
        in_channels: Width of the features.
        channels: Width of the transformer, unless ``embed_dims`` says another.
        num_layers: Number of its blocks.
        embed_dims: Width of the transformer; None for ``channels``.
        num_heads: Number of its attention heads; None for one for each 64 channels, as in Segmenter.
        options: As SegmenterMaskTransformerHead's.
    """

    def __init__(self, in_channels: int, channels: int, num_layers: int = 2, embed_dims: int | None = None,
                 num_heads: int | None = None, **options: object) -> None:
        embed_dims = embed_dims or channels
        super().__init__(in_channels=in_channels, channels=channels, num_layers=num_layers, embed_dims=embed_dims,
                         num_heads=num_heads or max(1, embed_dims // 64), **options)
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.register_forward_pre_hook(without_weights, with_kwargs=True)


def without_weights(attention: nn.MultiheadAttention, args: tuple, options: dict) -> tuple[tuple, dict]:
    """Asks for no attention weights, which nothing reads, so that torch need not make them."""
    return args, options | dict(need_weights=False)

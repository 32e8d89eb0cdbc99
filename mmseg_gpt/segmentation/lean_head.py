"""Decode heads of mmsegmentation with less time and memory; options, parameters and results are mmsegmentation's."""

from fractions import Fraction

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import FCNHead, SegmenterMaskTransformerHead, UPerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from .upsampled_loss import upsampled_loss


class LeanHead:
    """Computes the loss of a decode head whose logits are smaller than its labels in bands of rows.

    It stands before a decode head among the bases of a class. Logits are in the order of the ViT's tokens, which torch
    calls channels_last and in which the loss is faster. Where bands would not give the same numbers, see
    :func:`upsampled_loss`, the loss is computed as in mmsegmentation. In the accuracy, a label that shares the highest
    logit with another class counts as correct.
    """

    compilable = True  # see :class:`mmseg_gpt.engine.CompileHook`

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

    Patches and one token for each class attend to each other; the logits of a patch are its cosines with these, normed.
    The features belong after the ViT's final norm: ``backbone.out_type='normed_featmap'``. Attention uses torch's fused
    kernels, where mmsegmentation keeps the weights of all pairs of tokens.

    Args:
        options: As SegmenterMaskTransformerHead's.

    Raises:
        ValueError: ``out_channels`` is not the number of classes.
    """

    def __init__(self, **options: object) -> None:
        # mmsegmentation reads numbers from a tensor, which fails on the device "meta", where models are counted.
        with torch.device('cpu'):
            super().__init__(**options)
        if self.out_channels != self.num_classes:
            raise ValueError(f'Segmenter has a mask for each of the {self.num_classes} classes: leave out_channels='
                             f'{self.out_channels} out')
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.register_forward_pre_hook(without_weights, with_kwargs=True)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Scores each patch of the features (B, D, h, w) in ``inputs`` -> logits (B, C, h, w)."""
        x = self._transform_inputs(inputs)
        patches, classes = x.flatten(2).transpose(1, 2), self.cls_emb.expand(x.shape[0], -1, -1)
        tokens = torch.cat([self.dec_proj(patches), classes], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.decoder_norm(tokens)
        # Contiguous, or torch.export would ask whether there is only one image.
        patches, classes = tokens[:, :-self.num_classes].contiguous(), tokens[:, -self.num_classes:].contiguous()
        patches, classes = (F.normalize(each, dim=2) for each in (self.patch_proj(patches), self.classes_proj(classes)))
        logits = self.mask_norm(patches.bmm(classes.transpose(1, 2)))  # (B, h*w, C)
        return logits.transpose(1, 2).unflatten(2, x.shape[2:])


def without_weights(attention: nn.MultiheadAttention, args: tuple, options: dict) -> tuple[tuple, dict]:
    """Asks for no attention weights, which nothing reads, so that torch need not make them."""
    return args, options | dict(need_weights=False)

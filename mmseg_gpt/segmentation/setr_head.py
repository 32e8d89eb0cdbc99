"""The SETR-PUP head of mmsegmentation: same parameters, same numbers, less work."""

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import SETRUPHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..models.vit import is_open
from .recompute import Recipe, ReLUAndLinear, conv_norm, enlarged, has_hooks, kept_as, relu, upsampled
from .upsampled_loss import goes_in_bands, upsampled_loss


@MODELS.register_module()
class LeanSETRUPHead(SETRUPHead):
    """SETRUPHead in less time and memory; options, parameters and results are those of mmsegmentation's.

    * Classes are scored before the last upsampling instead of after it. A 1x1 convolution and bilinear interpolation
      commute, because the weights of an interpolation sum to 1.
    * The loss is computed in bands of rows, see :mod:`.cross_entropy`.
    * What is cheap to make again is not kept for the backward: the upsampled features, and those after batch norm
      and ReLU. The statistics of batch norm are updated once.
    * Features stay in the order of the ViT's tokens, which torch calls channels_last.

    Where one of these would not give the same numbers, the head does what mmsegmentation does: with dropout in
    training, ``align_corners``, an ``up_scale`` that is no whole number, or hooks on the modules that are replaced;
    with losses other than softmax cross-entropy, weights of classes or not, with Dice losses beside it or not; with
    labels of another size than the logits. One forward allows one backward. In the accuracy, a label that shares the
    highest logit with another class counts as correct.
    """

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Returns logits (B, C, H, W), H = up_scale ** num_convs * h, of the features (B, D, h, w) of one block."""
        if not self.commutes:
            return super().forward(inputs)
        return enlarged(self.up_convs[-1][1], self.small_logits(inputs))

    @property
    def commutes(self) -> bool:
        """Returns whether scoring classes before the last upsampling gives the same logits."""
        if not self.up_convs or type(self.conv_seg) is not nn.Conv2d or has_hooks(self.conv_seg):
            return False
        scale = self.up_convs[-1][1].scale_factor
        return not (self.align_corners or (self.dropout is not None and self.training)) and scale == int(scale)

    def small_logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Returns the logits before the last upsampling: (B, C, H / up_scale, W / up_scale)."""
        x = self._transform_inputs(inputs)
        x = self.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        recipe = None
        *stages, (last, _) = self.up_convs
        for conv, upsample in stages:
            with kept_as(x, recipe):
                x, recipe = conv_norm(conv, x)
            x, recipe = upsampled(upsample, relu(x, recipe), recipe)
        with kept_as(x, recipe):
            x, recipe = conv_norm(last, x)
        return self.score(x, recipe)

    def score(self, x: Tensor, recipe: Recipe | None) -> Tensor:
        """Returns logits of ``x``, by a product of matrices that leaves pixels in the order of the tokens."""
        weight, bias = self.conv_seg.weight.flatten(1), self.conv_seg.bias
        if recipe is None:
            return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
        logits = ReLUAndLinear.apply(x, weight, bias, recipe)
        return logits.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)

    def loss(self, inputs: tuple[Tensor, ...], batch_data_samples: list, train_cfg: dict) -> dict[str, Tensor]:
        """Returns the loss, and the pixel accuracy in percent, of a batch; arguments and keys as in mmsegmentation."""
        if not (self.commutes and self.sampler is None and goes_in_bands(self)):
            return super().loss(inputs, batch_data_samples, train_cfg)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        logits, upsample = self.small_logits(inputs), self.up_convs[-1][1]
        return (upsampled_loss(self, logits, labels, int(upsample.scale_factor))
                or self.loss_by_feat(upsample(logits), batch_data_samples))

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Resizes logits to the window or the padded image, unless they have its size."""
        meta = batch_img_metas[0]
        size = meta['img_shape']
        if not isinstance(size, torch.Size):  # which it is in sliding windows
            size = meta.get('pad_shape', size)
        if not is_open(seg_logits.shape[2:]) and tuple(seg_logits.shape[2:]) == tuple(size[:2]):
            return seg_logits
        return super().predict_by_feat(seg_logits, batch_img_metas)

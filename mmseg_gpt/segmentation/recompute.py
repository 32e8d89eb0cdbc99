"""Makes tensors again in the backward instead of keeping them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _BatchNorm

Recipe = Callable[[], Tensor]


def kept_as(tensor: Tensor, recipe: Recipe | None) -> AbstractContextManager:
    """Within this context autograd keeps ``recipe`` in the place of ``tensor``, and calls it in the backward.

    Args:
        tensor: What operations within would keep for their backward; anything else they keep as ever.
        recipe: Makes the same values again. None: the tensor is kept.
    """
    if recipe is None:
        return nullcontext()
    memory = StorageWeakRef(tensor.untyped_storage())  # weak, because what is kept refers to this function
    return torch.autograd.graph.saved_tensors_hooks(
        lambda saved: recipe if StorageWeakRef(saved.untyped_storage()) == memory else saved,
        lambda kept: kept if isinstance(kept, Tensor) else kept())


def upsampled(upsample: nn.Module, x: Tensor, recipe: Recipe | None) -> tuple[Tensor, Recipe]:
    """``upsample(x)``, and a recipe for it from ``x`` or from the recipe for ``x``."""
    kept = recipe or x.detach
    return upsample(x), lambda: upsample(kept())


def conv_norm_relu(layer: ConvModule, x: Tensor) -> tuple[Tensor, Recipe | None]:
    """``layer(x)``, and a recipe for it from the output of the convolution and the statistics of the batch.

    The running statistics are updated once, here. There is no recipe for other layers than convolution, batch norm
    and ReLU, in evaluation, and for synchronised batch norm in several processes, whose statistics torch does not
    give away.
    """
    if not can_be_remade(layer):
        return layer(x), None
    norm = layer.norm
    x = layer.conv(x)
    y, mean, invstd = torch.native_batch_norm(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps)
    norm.num_batches_tracked.add_(1)
    before = x.detach()

    def recipe() -> Tensor:
        return F.batch_norm(before, mean, invstd**-2 - norm.eps, norm.weight, norm.bias, eps=norm.eps).relu_()

    return RemadeReLU.apply(y, recipe), recipe


class RemadeReLU(torch.autograd.Function):
    """ReLU in the place of ``y``, with a recipe for the result, which is made again to tell where it was positive."""

    @staticmethod
    def forward(ctx, y: Tensor, recipe: Recipe) -> Tensor:
        ctx.recipe = recipe
        ctx.mark_dirty(y)
        return y.relu_()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        result, ctx.recipe = ctx.recipe(), None
        return torch.ops.aten.threshold_backward(gradient, result, 0, grad_input=result), None


def can_be_remade(layer: ConvModule) -> bool:
    """Whether ``layer`` is a convolution, batch norm in training, of which torch tells the statistics, and ReLU."""
    if layer.order != ('conv', 'norm', 'act') or not (layer.with_norm and layer.with_activation):
        return False
    norm = layer.norm
    synchronised = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
    return (torch.is_grad_enabled() and isinstance(norm, _BatchNorm) and norm.training and not synchronised
            and norm.affine and norm.track_running_stats and norm.momentum is not None
            and isinstance(layer.activate, nn.ReLU) and not layer.with_explicit_padding)

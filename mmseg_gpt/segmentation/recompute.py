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
ROWS = 8192  # of a matrix that are worked on at once where a whole one would only be for a moment


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


def conv_norm(layer: ConvModule, x: Tensor) -> tuple[Tensor, Recipe | None]:
    """``layer(x)`` without its ReLU, and a recipe for it with ReLU, from the convolution and the batch's statistics.

    The running statistics are updated once, here. There is no recipe, and ReLU is done, for other layers than
    convolution, batch norm and ReLU, in evaluation, and for synchronised batch norm in several processes, whose
    statistics torch does not give away.
    """
    if not can_be_remade(layer):
        return layer(x), None
    norm = layer.norm
    x = layer.conv(x)
    if x.numel() == x.shape[1]:
        return layer.activate(norm(x)), None  # one value of each channel: torch says that it has no variance
    y, mean, invstd = torch.native_batch_norm(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps)
    norm.num_batches_tracked.add_(1)
    before, weight, bias = x.detach(), norm.weight.detach().clone(), norm.bias.detach().clone()

    def recipe() -> Tensor:
        return F.batch_norm(before, mean, invstd**-2 - norm.eps, weight, bias, eps=norm.eps).relu_()

    return y, recipe


def relu(y: Tensor, recipe: Recipe | None) -> Tensor:
    """The features of which :func:`conv_norm` gave a recipe, in the place of ``y``; else ``y``, which has them."""
    return y if recipe is None else RemadeReLU.apply(y, recipe)


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
        result = take_recipe(ctx)()
        return torch.ops.aten.threshold_backward(gradient, result, 0, grad_input=result), None


def take_recipe(ctx: torch.autograd.function.FunctionCtx) -> Recipe:
    """The recipe in ``ctx``, which loses it: what it starts from is then freed as early as can be.

    Raises:
        RuntimeError: it was taken before.
    """
    recipe, ctx.recipe = ctx.recipe, None
    if recipe is None:
        raise RuntimeError('LeanSETRUPHead frees what its backward needs as it goes, so one forward allows one '
                           'backward, and no retain_graph; SETRUPHead of mmsegmentation allows more')
    return recipe


class ReLUAndLinear(torch.autograd.Function):
    """``relu(y)`` in the place of ``y``, of which nothing is kept, and each pixel of it times a matrix.

    ``(B, C, H, W) -> (B * H * W, K)``. In the backward one map of features is made again, and becomes the gradient.
    """

    @staticmethod
    def forward(ctx, y: Tensor, weight: Tensor, bias: Tensor, recipe: Recipe) -> Tensor:
        ctx.recipe = recipe
        ctx.save_for_backward(weight)
        return F.linear(as_tokens(y.relu_()), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, = ctx.saved_tensors
        features = take_recipe(ctx)()
        batch, _, height, width = features.shape
        tokens = as_tokens(features)
        of_weight = gradient.t() @ tokens
        matrix = weight.to(gradient.dtype)
        for rows, slope in zip(tokens.split(ROWS), gradient.split(ROWS)):
            torch.ops.aten.threshold_backward(slope @ matrix, rows, 0, grad_input=rows)
        of_y = tokens.view(batch, height, width, -1).permute(0, 3, 1, 2)
        return of_y, of_weight.to(weight.dtype), gradient.sum(0, dtype=weight.dtype), None


def as_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B * H * W, C), a view if ``x`` is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def can_be_remade(layer: ConvModule) -> bool:
    """Whether ``layer`` is a convolution, batch norm in training, of which torch tells the statistics, and ReLU."""
    if layer.order != ('conv', 'norm', 'act') or not (layer.with_norm and layer.with_activation):
        return False
    norm = layer.norm
    synchronised = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
    plain = type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return (torch.is_grad_enabled() and plain and norm.training and not synchronised
            and norm.affine and norm.track_running_stats and norm.momentum is not None
            and isinstance(layer.activate, nn.ReLU) and not layer.with_explicit_padding
            and not has_hooks(layer, norm, layer.activate))


def has_hooks(*modules: nn.Module) -> bool:
    """Whether something else is done when one of ``modules`` is called."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)

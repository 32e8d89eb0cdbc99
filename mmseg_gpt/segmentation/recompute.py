"""Recomputing tensors in the backward instead of keeping them. A recipe is a function that makes a tensor again."""

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

from ..models.sync_batch_norm import SyncBatchNorm
from ..models.vit import is_open
from .bands import size_on

Recipe = Callable[[], Tensor]
ROWS = dict(cpu=2**13, cuda=2**18)  # rows of a matrix to compute at once, where the whole would be a large temporary


def kept_as(tensor: Tensor, recipe: Recipe | None) -> AbstractContextManager:
    """Lets autograd keep ``recipe`` in the place of ``tensor`` within this context, and call it in the backward.

    Args:
        tensor: Tensor that operations within would keep for their backward; other tensors they keep as usual.
        recipe: Function that makes the same values again; None keeps the tensor.
    """
    if recipe is None:
        return nullcontext()
    memory = StorageWeakRef(tensor.untyped_storage())  # weak, because autograd keeps this function
    return torch.autograd.graph.saved_tensors_hooks(
        lambda saved: recipe if StorageWeakRef(saved.untyped_storage()) == memory else saved,
        lambda kept: kept if isinstance(kept, Tensor) else kept())


def upsampled(upsample: nn.Module, x: Tensor, recipe: Recipe | None) -> tuple[Tensor, Recipe]:
    """Returns ``upsample(x)`` and a recipe for it, which starts from ``x`` or from the recipe for ``x``."""
    kept = recipe or x.detach
    return enlarged(upsample, x), lambda: upsample(kept())


def enlarged(upsample: nn.Module, x: Tensor) -> Tensor:
    """Returns ``upsample(x)``, for a ``scale_factor`` that is a whole number.

    mmsegmentation's Upsample multiplies sizes by a float, and ``torch.export`` would hold that size fixed.
    """
    if not is_open(x.shape[2:]):
        return upsample(x)
    size = [int(upsample.scale_factor) * side for side in x.shape[2:]]
    return F.interpolate(x, size, mode=upsample.mode, align_corners=upsample.align_corners)


def conv_norm(layer: ConvModule, x: Tensor) -> tuple[Tensor, Recipe | None]:
    """Returns ``layer(x)`` before its ReLU, and a recipe for it after ReLU.

    The recipe starts from the output of the convolution and the batch's statistics. The running statistics are updated
    once, here. The recipe is None, and ReLU is applied, in evaluation, for layers other than convolution, batch norm
    and ReLU, and for torch's own SyncBatchNorm in several processes, which does not return the statistics.
    """
    if not can_be_remade(layer):
        return layer(x), None
    norm = layer.norm
    x = layer.conv(x)
    if isinstance(norm, SyncBatchNorm) and norm.is_synchronised:
        y, mean, invstd = norm.with_statistics(x)
    elif x.numel() == x.shape[1]:
        return layer.activate(norm(x)), None  # one value per channel has no variance: norm raises torch's error
    else:
        y, mean, invstd = torch.native_batch_norm(
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps)
        norm.num_batches_tracked.add_(1)
    # A step of the optimizer before the backward must not change what is made again.
    before, variance = x.detach(), invstd**-2 - norm.eps
    weight, bias = torch.stack([norm.weight.detach(), norm.bias.detach()])

    def recipe() -> Tensor:
        return F.batch_norm(before, mean, variance, weight, bias, eps=norm.eps).relu_()

    return y, recipe


def relu(y: Tensor, recipe: Recipe | None) -> Tensor:
    """Applies ReLU in place to the ``y`` of :func:`conv_norm`; without a recipe, ``y`` has it already."""
    return y if recipe is None else RemadeReLU.apply(y, recipe)


class RemadeReLU(torch.autograd.Function):
    """ReLU in place. The backward makes the result again by a recipe, to see where it was positive."""

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
    """Takes the recipe out of ``ctx``, so that the tensors it starts from are freed as early as possible.

    Raises:
        RuntimeError: the recipe was taken before.
    """
    recipe, ctx.recipe = ctx.recipe, None
    if recipe is None:
        raise RuntimeError('LeanSETRUPHead frees what its backward needs as it goes, so one forward allows one '
                           'backward, and no retain_graph; SETRUPHead of mmsegmentation allows more')
    return recipe


class ReLUAndLinear(torch.autograd.Function):
    """ReLU in place and a linear layer on each pixel, ``(B, C, H, W) -> (B * H * W, K)``, which keep no features.

    The backward makes the features again, once, and overwrites them with their gradient.
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
        step = size_on(tokens.device, ROWS)
        for rows, grad in zip(tokens.split(step), gradient.split(step)):
            torch.ops.aten.threshold_backward(grad @ matrix, rows, 0, grad_input=rows)
        of_y = tokens.view(batch, height, width, -1).permute(0, 3, 1, 2)
        return of_y, of_weight.to(weight.dtype), gradient.sum(0, dtype=weight.dtype), None


def as_tokens(x: Tensor) -> Tensor:
    """Turns pixels into rows: (B, C, H, W) -> (B * H * W, C), a view if ``x`` is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def can_be_remade(layer: ConvModule) -> bool:
    """Says whether ``layer`` is a convolution, a batch norm in training whose statistics torch returns, and ReLU."""
    if layer.order != ('conv', 'norm', 'act') or not (layer.with_norm and layer.with_activation):
        return False
    norm = layer.norm
    synchronised = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
    plain = type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward, SyncBatchNorm.forward)
    return (torch.is_grad_enabled() and plain and norm.training and not synchronised
            and norm.affine and norm.track_running_stats and norm.momentum is not None
            and isinstance(layer.activate, nn.ReLU) and not layer.with_explicit_padding
            and not has_hooks(layer, norm, layer.activate))


def has_hooks(*modules: nn.Module) -> bool:
    """Says whether a call of one of ``modules`` runs hooks."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)

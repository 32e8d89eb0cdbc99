"""Trained updates of the layers of a frozen ViT: LoRA, biases, and bottlenecks beside the MLPs.

The layers keep their weights and timm's names. The trained parameters are separate, under names that
:data:`mmseg_gpt.checkpoints.formats.UPDATE` matches, and have no effect at first: an updated ViT starts as the
pretrained one.
"""

import copy
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import Block, KeyBiasFreeLinear, is_recorded, without_key_bias


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank update of its weight: ``(W + alpha / rank * B A) x + b`` (arXiv 2106.09685).

    ``lora_a`` is A (rank, in), drawn as torch draws the weight of a linear layer, and ``lora_b`` is B (out, rank),
    which starts at zero. Without gradients, and in a recorded program, the weights are summed first, which costs less
    than updating every token. ``weight`` itself never changes, so checkpoints are the same in training and evaluation.
    Under autocast and in half precision the update is added to the output, because small updates would be rounded away
    in the sum of the weights. :mod:`.mixed` gives each image an A and a B of its own, with a leading axis for images.

    Args:
        layer: The linear layer, whose weight and bias are reused.
        rank: Rank of the update.
        alpha: Scale of the update: it is multiplied by ``alpha / rank``.

    Raises:
        ValueError: ``rank`` or ``alpha`` is out of its range.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device='meta')
        if not 1 <= rank <= min(layer.weight.shape):
            raise ValueError(f'lora: rank must be at least 1, and at most {min(layer.weight.shape)} in a layer of '
                             f'{tuple(layer.weight.shape)}, got {rank}')
        if alpha <= 0:
            raise ValueError(f'lora: alpha must be positive, got {alpha}')
        self.weight, self.bias = layer.weight, layer.bias
        self.is_key_bias_free = isinstance(layer, KeyBiasFreeLinear)
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def merged(self) -> Tensor:
        """Returns the sum of the weight and its update, (out, in)."""
        return torch.addmm(self.weight, self.lora_b, self.lora_a, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer and its update: (..., in) -> (..., out)."""
        if self._may_merge(x):
            return F.linear(x, self.merged(), used_bias(self))
        if self.lora_a.ndim == 3:
            y, low = F.linear(x, self.weight, used_bias(self)), x @ self.lora_a.mT
            return y.baddbmm_(low, self.lora_b.mT.to(y.dtype), alpha=self.scale)
        tokens = x.flatten(0, -2)
        y, low = F.linear(tokens, self.weight, used_bias(self)), F.linear(tokens, self.lora_a)
        # In place: the backward of a linear layer does not need its output.
        return y.addmm_(low, self.lora_b.t().to(y.dtype), alpha=self.scale).view(*x.shape[:-1], -1)

    def _may_merge(self, x: Tensor) -> bool:
        if self.lora_a.ndim == 3 or (torch.is_grad_enabled() and not is_recorded()):
            return False
        is_exact = self.weight.dtype == self.lora_a.dtype and self.weight.dtype in (torch.float32, torch.float64)
        return is_exact and not torch.is_autocast_enabled(x.device.type)


def used_bias(layer: nn.Linear) -> Tensor | None:
    """Returns the bias that a layer adds, in which that of DINOv3's keys is zero, whatever ``layer.bias`` holds."""
    return without_key_bias(layer.bias) if is_key_bias_free(layer) else layer.bias


def is_key_bias_free(layer: nn.Linear) -> bool:
    """Says whether a layer, with an update or without, is the ``qkv`` of DINOv3, whose keys have no bias."""
    return isinstance(layer, KeyBiasFreeLinear) or getattr(layer, 'is_key_bias_free', False)


class BottleneckLinear(nn.Linear):
    """A linear layer, possibly with weights of its own for each image: (B, out, in) with biases (B, out)."""

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer: (..., in) -> (..., out), or (B, N, in) -> (B, N, out)."""
        if self.weight.ndim == 2:
            return super().forward(x)
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT)


class Bottleneck(nn.Module):
    """AdaptFormer's bottleneck beside an MLP: ``scale * (W_up relu(W_down x))`` is added to the MLP's output.

    Source: arXiv 2205.13535, equation 5, with LoRA's initialisation as in its code. It reads what the MLP reads.

    Args:
        dim: Width D of the tokens.
        width: Width of the bottleneck.
        scale: Factor of the bottleneck's output.

    Raises:
        ValueError: ``width`` or ``scale`` is out of its range.
    """

    def __init__(self, dim: int, width: int = 64, scale: float = 0.1) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f'adapter: width must be at least 1, got {width}')
        if scale <= 0:
            raise ValueError(f'adapter: scale must be positive, got {scale}')
        self.scale = scale
        self.down, self.up = BottleneckLinear(dim, width), BottleneckLinear(width, dim)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added, before the factor: (..., D) -> (..., D)."""
        return self.up(F.relu(self.down(x)))


def add_lora(blocks: Iterable[nn.Module], rank: int = 4, alpha: float = 4,
             targets: tuple[str, ...] = ('attn.qkv', )) -> dict:
    """Gives linear layers of blocks a low-rank update.

    Args:
        blocks: The blocks.
        rank: Rank of the updates.
        alpha: Scale of the updates: they are multiplied by ``alpha / rank``.
        targets: Endings of the names of the layers within a block, such as 'attn.qkv' or 'mlp.fc1'.

    Returns:
        dict: The three options, complete.

    Raises:
        ValueError: no layer has such a name, or ``rank`` or ``alpha`` is out of its range.
    """
    targets = (targets, ) if isinstance(targets, str) else tuple(targets)
    for block in blocks:
        layers = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        for target in targets or ('', ):
            if not target or not any(is_ending(target, name) for name in layers):
                raise ValueError(f'lora: no linear layer has a name that ends in {target}: a block has {layers}')
        for name in layers:
            if any(is_ending(target, name) for target in targets):
                block.set_submodule(name, LoRALinear(block.get_submodule(name), rank, alpha))
    return dict(rank=rank, alpha=alpha, targets=targets)


def is_ending(target: str, name: str) -> bool:
    """Says whether a dotted name ends in ``target``, which begins with a whole part of it."""
    return f'.{name}'.endswith(f'.{target}')


def add_bias_updates(modules: Iterable[nn.Module]) -> None:
    """Gives each layer that has a bias a trained update of it, which starts at zero (BitFit, arXiv 2106.10199)."""
    for module in modules:
        for layer in module.modules():
            if isinstance(getattr(layer, 'bias', None), nn.Parameter):
                layer.bias_update = nn.Parameter(torch.zeros_like(layer.bias))
                layer.register_forward_hook(update_bias)


def update_bias(layer: nn.Module, _: tuple, output: Tensor) -> Tensor:
    """Adds the update to what the layer returned, in place, as no backward of a layer with a bias needs its output.

    The update is (C,), or (B, C) with one for each image.
    """
    update = getattr(layer, 'bias_update', None)
    if update is None:  # it was merged, or is switched off
        return output
    update = update.to(output.dtype)  # under autocast biases are rounded too
    if isinstance(layer, nn.Conv2d):
        return output.add_(update[..., None, None])
    return output.add_(update if update.ndim == 1 else update.view(len(output), *(1, ) * (output.ndim - 2), -1))


def add_bottlenecks(blocks: Iterable[Block], dim: int, width: int = 64, scale: float = 0.1) -> dict:
    """Puts a :class:`Bottleneck` beside the MLP of each block, as ``mlp.adapter``; returns its options, complete."""
    for block in blocks:
        block.mlp.adapter = Bottleneck(dim, width, scale)
        block.mlp.register_forward_hook(add_bottleneck)
    return dict(width=width, scale=scale)


def add_bottleneck(mlp: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Adds what the bottleneck makes of the MLP's input to its output, in place."""
    return output.add_(mlp.adapter(inputs[0]), alpha=mlp.adapter.scale)


def without_updates(vit: nn.Module) -> nn.Module:
    """Returns a copy of a ViT in which LoRA and updates of biases are merged into the weights, as for an export.

    Prompts, gates, temperatures and bottlenecks are not a change of weights, and stay.

    Args:
        vit: A GatedPromptViT, which stays as it is.
    """
    vit = copy.deepcopy(vit)
    for name, layer in list(vit.named_modules()):
        update = layer._parameters.pop('bias_update', None)
        if isinstance(layer, nn.Linear) and (update is not None or isinstance(layer, LoRALinear)):
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device='meta')
            weight, bias = layer.merged() if isinstance(layer, LoRALinear) else layer.weight, used_bias(layer)
            plain.weight = nn.Parameter(weight.detach(), layer.weight.requires_grad)
            if bias is not None:
                bias = bias if update is None else bias + update
                plain.bias = nn.Parameter(bias.detach(), layer.bias.requires_grad)
            vit.set_submodule(name, plain)
        elif update is not None:
            layer.bias.data += update.data
    vit.lora, vit.biases = None, False
    return vit


@contextmanager
def updates_off(vit: nn.Module) -> Iterator[None]:
    """Lets a ViT compute without its updates until the end of the ``with`` block."""
    scaled = {module: module.scale for module in vit.modules() if isinstance(module, (LoRALinear, Bottleneck))}
    biases = {module: module._parameters.pop('bias_update') for module in vit.modules()
              if 'bias_update' in module._parameters}
    try:
        for module in scaled:
            module.scale = 0.
        yield
    finally:
        for module, scale in scaled.items():
            module.scale = scale
        for module, update in biases.items():
            module.bias_update = update


def rename_old(vit: nn.Module, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Gives the updates of LoRAViT in older checkpoints the names of today, in place; others stay as they are.

    They were named as in mmpretrain. Blocks after the last output had updates too, which nothing used.

    Args:
        vit: The ViT to be loaded.
        state: The state dict.
        prefix: What precedes the names of the ViT's weights in it.
    """
    if not getattr(vit, 'lora', None):
        return
    old = re.compile(re.escape(prefix) + r'(blocks\.(\d+)\..+)\.(original_layer\.|lora_down\.weight$|lora_up\.weight$)')
    for name in list(state):
        if match := old.match(name):
            value, layer, kind = state.pop(name), prefix + match[1], match[3]
            if kind == 'original_layer.':
                state[f'{layer}.{name[match.end():]}'] = value
            elif int(match[2]) <= max(vit.out_indices):
                state[layer + ('.lora_a' if kind.startswith('lora_down') else '.lora_b')] = value

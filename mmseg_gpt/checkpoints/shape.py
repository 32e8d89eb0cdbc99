"""The sizes of the ViT in a state dict with timm's names, read off its names and shapes."""

import math
import re
from typing import NamedTuple

from .formats import State

NAMES = {192: 'ViT-Ti', 384: 'ViT-S', 768: 'ViT-B', 1024: 'ViT-L', 1280: 'ViT-H', 1536: 'ViT-g', 4096: 'ViT-7B'}


class VitShape(NamedTuple):
    """The sizes of a ViT; 0 where the state dict does not show one.

    Attributes:
        width: Width D of the tokens.
        blocks: Number of blocks.
        hidden: Width of the MLPs' hidden layer.
        patch: Side of a patch in pixels.
        positions: Entries of the position embedding, CLS among them.
        registers: Number of register tokens.
        layer_scale: Whether the blocks have LayerScale.
        rotary: Whether it is a ViT without a position embedding, as those with rotary positions are.
        gated_mlp: Whether its MLPs are gated.
        qkv_bias: Whether queries and values have a bias.
        channels: Number of channels of an image.
    """
    width: int
    blocks: int
    hidden: int
    patch: int
    positions: int
    registers: int
    layer_scale: bool
    rotary: bool
    gated_mlp: bool
    qkv_bias: bool
    channels: int = 3

    @property
    def name(self) -> str:
        """Name such as ViT-B, or 'a ViT' if no released ViT has this width."""
        return NAMES.get(self.width, 'a ViT')

    @property
    def side(self) -> int:
        """Side of the position embedding's grid, or 0 if its entries are not one for CLS and a square."""
        side = math.isqrt(max(self.positions - 1, 0))
        return side if side**2 + 1 == self.positions else 0

    def __str__(self) -> str:
        if not self.patch:
            return f'no patch embedding and {self.blocks} blocks'
        extras = ['LayerScale'] * self.layer_scale + [f'{self.registers} registers'] * bool(self.registers)
        extras += ['rotary positions'] * self.rotary + ['gated MLPs'] * self.gated_mlp
        extras += ['no bias of queries and values'] * (not self.qkv_bias)
        extras += [f'{self.channels} channels'] * (self.channels != 3)
        return f'{self.name} ({", ".join([f"width {self.width}, {self.blocks} blocks, patch {self.patch}", *extras])})'


def shape_of(state: State) -> VitShape:
    """Reads the sizes off a state dict with timm's names, which may be incomplete."""

    def size(name: str, ndim: int, axis: int) -> int:
        return state[name].shape[axis] if name in state and state[name].ndim == ndim else 0

    gated_mlp = 'blocks.0.mlp.fc1_g.weight' in state
    return VitShape(
        width=size('patch_embed.proj.weight', 4, 0),
        blocks=len({k.split('.')[1] for k in state if k.startswith('blocks.')}),
        hidden=size('blocks.0.mlp.fc1_g.weight' if gated_mlp else 'blocks.0.mlp.fc1.weight', 2, 0),
        patch=size('patch_embed.proj.weight', 4, 3),
        positions=size('pos_embed', 3, 1),
        registers=size('reg_token', 3, 1),
        layer_scale=any(re.fullmatch(r'blocks\.\d+\.ls1\.gamma', k) for k in state),
        rotary='pos_embed' not in state and 'reg_token' in state and 'blocks.0.ls1.gamma' in state,
        gated_mlp=gated_mlp,
        qkv_bias=any(re.fullmatch(r'blocks\.\d+\.attn\.qkv\.bias', k) for k in state),
        channels=size('patch_embed.proj.weight', 4, 1))


def grid_of(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Returns the rows and columns (h, w) of patches that cover an image of a size in pixels: a side, or both."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    return -(-height // patch_size), -(-width // patch_size)

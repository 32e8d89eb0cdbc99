"""Recognising a checkpoint's layout by its names, and renaming it to timm's.

One pure function for each layout, from state dict to state dict. To add a layout, add a
:class:`Layout` to ``LAYOUTS``: the first whose ``mark`` is among the names is taken.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]


class Layout(NamedTuple):
    """How one family of checkpoints names its weights.

    Attributes:
        name: What error messages and the log call it.
        mark: A name that files of this layout have and others have not.
        convert: From the file's state dict to timm's names.
        num_heads: From the file's state dict to its number of attention heads, None where it does not tell.
    """
    name: str
    mark: str
    convert: Callable[[State], State]
    num_heads: Callable[[State], int | None] = lambda state: None


def strip(prefix: str) -> Callable[[State], State]:
    """Makes a converter that keeps the names under ``prefix``, without it."""

    def convert(state: State) -> State:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    return convert


def from_openmmlab(prefix: str) -> Callable[[State], State]:
    """Makes a converter of the names of mmpretrain's and mmsegmentation's VisionTransformer under ``prefix``."""
    renames = (('layers.', 'blocks.'), ('.ln1.', '.norm1.'), ('.ln2.', '.norm2.'), ('.ffn.layers.0.0.', '.mlp.fc1.'),
               ('.ffn.layers.1.', '.mlp.fc2.'), ('patch_embed.projection.', 'patch_embed.proj.'),
               ('.attn.attn.in_proj_', '.attn.qkv.'), ('.attn.attn.out_proj.', '.attn.proj.'))

    def convert(state: State) -> State:
        converted = {}
        for name, value in strip(prefix)(state).items():
            name = re.sub(r'^ln1\.', 'norm.', name)
            for old, new in renames:
                name = name.replace(old, new, 1)
            if name in converted:
                raise ValueError(f'two of its names both mean {name}')
            converted[name] = value
        return converted

    return convert


def from_jax(state: State) -> State:
    """Converts the published JAX ViT names; kernels there are (in, out) and images (H, W, C).

    Raises:
        ValueError: an array is missing or has other axes than JAX's; the message names it.
    """
    rest = dict(state)

    def take(name: str, *shape: int | None) -> Tensor:
        if name not in rest:
            raise ValueError(f'{name} is missing')
        value = rest.pop(name)
        if len(shape) != value.ndim or any(n not in (None, m) for n, m in zip(shape, value.shape)):
            raise ValueError(f'{name} has the shape {tuple(value.shape)} instead of {shape} (None: any)')
        return value

    converted = {'cls_token': take('cls', 1, 1, None)}
    dims = converted['cls_token'].shape[-1]
    converted['pos_embed'] = take('Transformer/posembed_input/pos_embedding', 1, None, dims)
    converted['patch_embed.proj.weight'] = take('embedding/kernel', None, None, 3, dims).permute(3, 2, 0, 1)
    converted['patch_embed.proj.bias'] = take('embedding/bias', dims)
    norms = {'Transformer/encoder_norm': 'norm'}
    heads = jax_heads(state)
    for block in sorted({k.split('/')[1] for k in state if k.startswith('Transformer/encoderblock_')}):
        source, target = f'Transformer/{block}', f'blocks.{block.removeprefix("encoderblock_")}'
        attention = f'{source}/MultiHeadDotProductAttention_1'
        qkv = [(take(f'{attention}/{part}/kernel', dims, heads, dims // heads).flatten(1).T,
                take(f'{attention}/{part}/bias', heads, dims // heads).flatten()) for part in ('query', 'key', 'value')]
        converted[f'{target}.attn.qkv.weight'] = torch.cat([kernel for kernel, _ in qkv])  # (3D, D)
        converted[f'{target}.attn.qkv.bias'] = torch.cat([bias for _, bias in qkv])
        converted[f'{target}.attn.proj.weight'] = take(
            f'{attention}/out/kernel', heads, dims // heads, dims).flatten(0, 1).T
        converted[f'{target}.attn.proj.bias'] = take(f'{attention}/out/bias', dims)
        for old, new in (('Dense_0', 'fc1'), ('Dense_1', 'fc2')):
            converted[f'{target}.mlp.{new}.weight'] = take(f'{source}/MlpBlock_3/{old}/kernel', None, None).T
            converted[f'{target}.mlp.{new}.bias'] = take(f'{source}/MlpBlock_3/{old}/bias', None)
        norms |= {f'{source}/LayerNorm_0': f'{target}.norm1', f'{source}/LayerNorm_2': f'{target}.norm2'}
    for old, new in norms.items():
        converted[f'{new}.weight'] = take(f'{old}/scale', dims)
        converted[f'{new}.bias'] = take(f'{old}/bias', dims)
    return converted | {k.replace('/', '.'): v for k, v in rest.items()}


def jax_heads(state: State) -> int:
    """The number of attention heads, which JAX's query kernel (D, heads, d) shows."""
    name = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel'
    if name not in state or state[name].ndim != 3 or not state[name].shape[1]:
        raise ValueError(f'{name} is missing, or not (width, heads, width of a head)')
    return state[name].shape[1]


def moco_heads(state: State) -> int | None:
    """12 for MoCo v3's ViT-S, which everywhere else has 6; nothing in the file shows it."""
    cls_token = state.get('module.base_encoder.cls_token', state.get('module.cls_token'))
    return 12 if cls_token.shape[-1] == 384 else None


LAYOUTS = (
    Layout('MoCo v3 pretraining', 'module.base_encoder.cls_token', strip('module.base_encoder.'), moco_heads),
    Layout('MoCo v3 linear probe', 'module.cls_token', strip('module.'), moco_heads),
    Layout('JAX ViT (.npz)', 'embedding/kernel', from_jax, jax_heads),
    Layout('mmpretrain or mmsegmentation', 'backbone.layers.0.ln1.weight', from_openmmlab('backbone.')),
    Layout('mmpretrain or mmsegmentation backbone', 'layers.0.ln1.weight', from_openmmlab('')),
    Layout('mmseg_gpt', 'backbone.blocks.0.norm1.weight', strip('backbone.')),
    Layout('timm names (MAE, DINO, timm)', 'blocks.0.norm1.weight', strip('')),
)


def to_timm(state: State) -> tuple[Layout, State]:
    """Recognises the layout of ``state`` and renames it to timm's names.

    Returns:
        tuple: The layout, and the converted state dict, heads and decoders still in it.

    Raises:
        ValueError: no known layout, or one that is broken; the message shows some of the names.
    """
    for layout in LAYOUTS:
        if layout.mark in state:
            return layout, layout.convert(state)
    known = '\n'.join(f'  {layout.name}: {layout.mark}' for layout in LAYOUTS)
    raise ValueError(f'its first names are {list(state)[:4]}, and none is the mark of a known layout:\n{known}')

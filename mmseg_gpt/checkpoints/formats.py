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
    """
    name: str
    mark: str
    convert: Callable[[State], State]


def strip(prefix: str) -> Callable[[State], State]:
    """Makes a converter that keeps the names under ``prefix``, without it."""

    def convert(state: State) -> State:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    return convert


def from_mmpretrain(prefix: str) -> Callable[[State], State]:
    """Makes a converter of mmpretrain's VisionTransformer names under ``prefix``."""
    renames = (('layers.', 'blocks.'), ('.ln1.', '.norm1.'), ('.ln2.', '.norm2.'), ('.ffn.layers.0.0.', '.mlp.fc1.'),
               ('.ffn.layers.1.', '.mlp.fc2.'), ('patch_embed.projection.', 'patch_embed.proj.'))

    def convert(state: State) -> State:
        converted = {}
        for name, value in strip(prefix)(state).items():
            name = re.sub(r'^ln1\.', 'norm.', name)
            for old, new in renames:
                name = name.replace(old, new, 1)
            converted[name] = value
        return converted

    return convert


def from_jax(state: State) -> State:
    """Converts the published JAX ViT names; kernels there are (in, out) and images (H, W, C)."""
    converted = {
        'cls_token': state['cls'],
        'pos_embed': state['Transformer/posembed_input/pos_embedding'],
        'patch_embed.proj.weight': state['embedding/kernel'].permute(3, 2, 0, 1),
        'patch_embed.proj.bias': state['embedding/bias'],
        'norm.weight': state['Transformer/encoder_norm/scale'],
        'norm.bias': state['Transformer/encoder_norm/bias'],
    }
    dims = state['cls'].shape[-1]
    blocks = {k.split('/')[1] for k in state if k.startswith('Transformer/encoderblock_')}
    for block in blocks:
        source, target = f'Transformer/{block}', f'blocks.{block.removeprefix("encoderblock_")}'
        attention = f'{source}/MultiHeadDotProductAttention_1'
        kernels = [state[f'{attention}/{part}/kernel'].reshape(dims, dims).T for part in ('query', 'key', 'value')]
        biases = [state[f'{attention}/{part}/bias'].flatten() for part in ('query', 'key', 'value')]
        converted[f'{target}.attn.qkv.weight'] = torch.cat(kernels)  # (3D, D)
        converted[f'{target}.attn.qkv.bias'] = torch.cat(biases)
        converted[f'{target}.attn.proj.weight'] = state[f'{attention}/out/kernel'].reshape(dims, dims).T
        converted[f'{target}.attn.proj.bias'] = state[f'{attention}/out/bias']
        for old, new in (('LayerNorm_0', 'norm1'), ('LayerNorm_2', 'norm2')):
            converted[f'{target}.{new}.weight'] = state[f'{source}/{old}/scale']
            converted[f'{target}.{new}.bias'] = state[f'{source}/{old}/bias']
        for old, new in (('Dense_0', 'fc1'), ('Dense_1', 'fc2')):
            converted[f'{target}.mlp.{new}.weight'] = state[f'{source}/MlpBlock_3/{old}/kernel'].T
            converted[f'{target}.mlp.{new}.bias'] = state[f'{source}/MlpBlock_3/{old}/bias']
    return converted


LAYOUTS = (
    Layout('MoCo v3 pretraining', 'module.base_encoder.cls_token', strip('module.base_encoder.')),
    Layout('MoCo v3 linear probe', 'module.cls_token', strip('module.')),
    Layout('JAX ViT (.npz)', 'embedding/kernel', from_jax),
    Layout('mmpretrain', 'backbone.layers.0.ln1.weight', from_mmpretrain('backbone.')),
    Layout('mmpretrain backbone', 'layers.0.ffn.layers.0.0.weight', from_mmpretrain('')),
    Layout('mmseg_gpt', 'backbone.blocks.0.norm1.weight', strip('backbone.')),
    Layout('timm names (MAE, DINO, timm)', 'blocks.0.norm1.weight', strip('')),
)


def to_timm(state: State) -> tuple[str, State]:
    """Recognises the layout of ``state`` and renames it to timm's names.

    Returns:
        tuple: The layout's name, and the converted state dict, heads and decoders still in it.

    Raises:
        ValueError: no known layout; the message shows some of the names.
    """
    for layout in LAYOUTS:
        if layout.mark in state:
            return layout.name, layout.convert(state)
    raise ValueError(f'none of the known layouts ({", ".join(layout.name for layout in LAYOUTS)}); '
                     f'its first names are {list(state)[:4]}')

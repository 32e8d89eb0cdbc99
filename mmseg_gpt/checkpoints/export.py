"""Renaming a ViT from timm's names to the layouts of other libraries: the inverse of :mod:`.formats`.

Each function takes and returns a state dict, and raises a ValueError for a weight that its layout has no name for.
"""

import re
from collections.abc import Callable

import torch

from .dinov3 import is_dinov3
from .periods import rotary_periods
from .renaming import State, rename

OPENMMLAB = ((r'^norm\.', 'ln1.'), (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
             (r'^(blocks\.\d+)\.norm([12])\.', r'\1.ln\2.'), (r'^(blocks\.\d+)\.ls1\.gamma$', r'\1.attn.gamma1.weight'),
             (r'^(blocks\.\d+)\.ls2\.gamma$', r'\1.ffn.gamma2.weight'),
             (r'^(blocks\.\d+)\.mlp\.fc1\.', r'\1.ffn.layers.0.0.'),
             (r'^(blocks\.\d+)\.mlp\.fc2\.', r'\1.ffn.layers.1.'))
HEAD_WIDTHS = {384: 64, 768: 64, 1024: 64, 1280: 64, 4096: 128}  # of the released DINOv3
TO_BACKBONE = ((r'^blocks\.', 'layers.'), ('^', 'backbone.'))


def as_timm(state: State) -> State:
    """Keeps the names, but for DINOv3, which has names of its own there.

    With registers, adds the position of CLS to the CLS token, because timm has none for it.
    """
    if is_dinov3(state):
        state = rename(state, (r'^(blocks\.\d+)\.ls([12])\.gamma$', r'\1.gamma_\2'))
        return split(state, 'bias', r'\1q_bias', None, r'\1v_bias')
    if 'reg_token' not in state:
        return state
    cls, patches = state['pos_embed'][:, :1], state['pos_embed'][:, 1:]
    return {**state, 'cls_token': state['cls_token'] + cls, 'pos_embed': patches}


def as_mmpretrain(state: State) -> State:
    """Renames to mmpretrain 1.2's VisionTransformer, under ``backbone.``."""
    refuse(state, 'mmpretrain', 'reg_token')
    return rename(state, *OPENMMLAB, *TO_BACKBONE)


def as_mmsegmentation(state: State) -> State:
    """Renames to mmsegmentation 1.2's VisionTransformer (with ``patch_bias=True``), under ``backbone.``."""
    refuse(state, 'mmsegmentation', 'reg_token', 'blocks.0.ls1.gamma')
    return rename(state, *OPENMMLAB, (r'^(blocks\.\d+)\.attn\.qkv\.', r'\1.attn.attn.in_proj_'),
                  (r'^(blocks\.\d+)\.attn\.proj\.', r'\1.attn.attn.out_proj.'), *TO_BACKBONE)


def as_mmseg_gpt(state: State) -> State:
    """Renames to the backbone inside a model of this project, under ``backbone.``."""
    return rename(state, ('^', 'backbone.'))


def as_dinov3(state: State) -> State:
    """Renames a DINOv3 to its own names, with what its code wants beside: a mask token, periods and masks of biases.

    The periods depend on the width of a head, which no weight shows: they are written for the released widths alone.
    """
    if not is_dinov3(state):
        raise ValueError('this layout is for DINOv3 alone')
    dims = state['cls_token'].shape[-1]
    masks = {f'{name}_mask': torch.ones_like(value).index_fill(0, torch.arange(dims, 2 * dims), 0)
             for name, value in state.items() if name.endswith('.attn.qkv.bias')}
    state = rename({**state, **masks}, (r'^reg_token$', 'storage_tokens'))
    if 'blocks.0.mlp.fc1_g.weight' in state:
        state = rename(state, (r'\.fc1_g\.', '.w1.'), (r'\.fc1_x\.', '.w2.'), (r'\.fc2\.', '.w3.'))
    if dims in HEAD_WIDTHS:
        state['rope_embed.periods'] = rotary_periods(HEAD_WIDTHS[dims], 'bfloat16')
    return {**state, 'mask_token': torch.zeros(1, dims)}


def as_huggingface(state: State) -> State:
    """Renames a DINOv3 to the names of Hugging Face's transformers, with a mask token of 0."""
    if not is_dinov3(state):
        raise ValueError('this layout is for DINOv3 alone')
    up = 'up_proj' if 'blocks.0.mlp.fc1_g.weight' not in state else 'gate_proj'
    layer = r'^(model\.layer\.\d+)\.'
    state = split(state, 'weight', *(rf'\1{part}.weight' for part in 'qkv'))
    state = split(state, 'bias', r'\1q.bias', None, r'\1v.bias')
    state = rename(
        state, (r'^blocks\.', 'model.layer.'), (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.'),
        (r'^reg_token$', 'embeddings.register_tokens'), (r'^cls_token$', 'embeddings.cls_token'),
        (rf'{layer}attn\.([qkv])\.', r'\1.attention.\2_proj.'), (rf'{layer}attn\.proj\.', r'\1.attention.o_proj.'),
        (rf'{layer}ls([12])\.gamma$', r'\1.layer_scale\2.lambda1'), (rf'{layer}mlp\.fc1(_g)?\.', rf'\1.mlp.{up}.'),
        (rf'{layer}mlp\.fc1_x\.', r'\1.mlp.up_proj.'), (rf'{layer}mlp\.fc2\.', r'\1.mlp.down_proj.'))
    return {**state, 'embeddings.mask_token': torch.zeros(1, 1, state['norm.weight'].shape[0])}


def split(state: State, kind: str, queries: str, keys: str | None, values: str) -> State:
    """Splits each ``attn.qkv`` of a kind, 'weight' or 'bias', into three of these names; \\1 is what stands before.

    Raises:
        ValueError: the part of the keys is to be left out, and is not 0.
    """
    result = {}
    for name, value in state.items():
        match = re.fullmatch(rf'(blocks\.\d+\.attn\.)qkv\.{kind}', name)
        if not match:
            result[name] = value
            continue
        for target, part in zip((queries, keys, values), value.chunk(3)):
            if target is not None:
                result[match.expand(target)] = part
            elif part.any():
                raise ValueError(f'{name}: the layout has no bias of keys, and it is not 0')
    return result


EXPORTS: dict[str, Callable[[State], State]] = {
    'timm': as_timm, 'mmpretrain': as_mmpretrain, 'mmsegmentation': as_mmsegmentation, 'mmseg_gpt': as_mmseg_gpt,
    'dinov3': as_dinov3, 'huggingface': as_huggingface}


def refuse(state: State, library: str, *names: str) -> None:
    """Refuses weights that the ViT of ``library`` does not have.

    Raises:
        ValueError: one of ``names`` is in ``state``.
    """
    for name in names:
        if name in state:
            raise ValueError(f'{library} has no place for {name}: take the layout timm or mmseg_gpt')

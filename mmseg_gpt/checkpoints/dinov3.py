"""Renaming DINOv3's weights to ours: from its own names, those of timm, and those of Hugging Face's transformers."""

import re

import torch
from torch import Tensor

from .renaming import State, join, join_qkv, rename

# No bias is longer; a view can claim to be of any size.
MOST = 10**5


def from_official(state: State) -> State:
    """Converts DINOv3's own names. The bias of the keys is masked there, and need not be 0.

    Raises:
        ValueError: there are biases with and without a mask.
    """
    state = rename(state, (r'^storage_tokens$', 'reg_token'), (r'\.mlp\.w1\.', '.mlp.fc1_g.'),
                   (r'\.mlp\.w2\.', '.mlp.fc1_x.'), (r'\.mlp\.w3\.', '.mlp.fc2.'))
    biases = [name for name in state if re.fullmatch(r'blocks\.\d+\.attn\.qkv\.bias', name)]
    masked = [name for name in biases if f'{name}_mask' in state]
    if masked and len(masked) < len(biases):
        raise ValueError(f'{len(masked)} of its {len(biases)} biases of queries, keys and values have a mask')
    for name in masked:
        if is_key_mask(state[f'{name}_mask'], state[name]):
            state[name] = state[name] * state.pop(f'{name}_mask')
    return state


def is_key_mask(mask: Tensor, bias: Tensor) -> bool:
    """Says whether a mask (3D,) is 0 for the keys and 1 elsewhere, and ``bias`` has its shape and type."""
    if mask.shape != bias.shape or mask.ndim != 1 or len(mask) % 3 or len(mask) > MOST or mask.dtype != bias.dtype:
        return False
    queries, keys, values = mask.chunk(3)
    return not keys.any() and bool((queries == 1).all() and (values == 1).all())


def from_timm(state: State) -> State:
    """Converts timm's names of DINOv3. Its ``_qkvb`` models have biases of queries and values, the others none."""
    state = rename(state, (r'^(blocks\.\d+)\.gamma_([12])$', r'\1.ls\2.gamma'))
    return with_key_bias(rename(state, (r'\.attn\.([qv])_bias$', r'.attn.\1.bias')))


def from_huggingface(state: State) -> State:
    """Converts the names of DINOv3 in Hugging Face's transformers."""
    gated = any(name.endswith('mlp.gate_proj.weight') for name in state)
    layer = r'^(blocks\.\d+)\.'
    state = rename(
        state, (r'^(model\.)?layer\.(\d+)\.', r'blocks.\2.'),
        (r'^embeddings\.patch_embeddings\.', 'patch_embed.proj.'),
        (r'^embeddings\.register_tokens$', 'reg_token'), (r'^embeddings\.(cls_token|mask_token)$', r'\1'),
        (rf'{layer}attention\.([qkv])_proj\.', r'\1.attn.\2.'), (rf'{layer}attention\.o_proj\.', r'\1.attn.proj.'),
        (rf'{layer}layer_scale([12])\.lambda1$', r'\1.ls\2.gamma'), (rf'{layer}mlp\.gate_proj\.', r'\1.mlp.fc1_g.'),
        (rf'{layer}mlp\.up_proj\.', r'\1.mlp.fc1_x.' if gated else r'\1.mlp.fc1.'),
        (rf'{layer}mlp\.down_proj\.', r'\1.mlp.fc2.'))
    return join_qkv(with_key_bias(state), ('q', 'k', 'v'))


def is_dinov3(state: State) -> bool:
    """Says whether a ViT by our names or timm's is a DINOv3: it has registers, but no ``pos_embed``."""
    return 'reg_token' in state and 'pos_embed' not in state


def with_key_bias(state: State) -> State:
    """Joins ``attn.q.bias`` and ``attn.v.bias`` to ``attn.qkv.bias`` with 0 for the keys, where both are there."""
    joined = dict(state)
    for name, queries in state.items():
        values = state.get(name.replace('.q.', '.v.'))
        if re.fullmatch(r'blocks\.\d+\.attn\.q\.bias', name) and values is not None and (
                name.replace('.q.', '.k.') not in state):
            joined[name.replace('.q.', '.qkv.')] = join([queries, torch.zeros_like(queries), values], name)
            del joined[name], joined[name.replace('.q.', '.v.')]
    return joined


def num_heads(state: State) -> int | None:
    """Returns the number of heads of width d, which have d/4 rotary periods; None where the file has none."""
    periods, cls_token = state.get('rope_embed.periods'), state.get('cls_token')
    if periods is None or cls_token is None or periods.ndim != 1 or not len(periods):
        return None
    return cls_token.shape[-1] // (4 * len(periods))

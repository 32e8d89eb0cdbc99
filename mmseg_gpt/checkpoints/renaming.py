"""Renaming the weights in a state dict, and joining those that are one in ours."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]


def rename(state: State, *rules: tuple[str, str | Callable[[re.Match], str]]) -> State:
    """Replaces regular expressions in the names, one after the other.

    Raises:
        ValueError: two names become one.
    """
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    renamed = {}
    for name, value in state.items():
        for pattern, new in compiled:
            name = pattern.sub(new, name)
        if name in renamed:
            raise ValueError(f'two of its names both mean {name}')
        renamed[name] = value
    return renamed


def drop_prefix(prefix: str, state: State) -> State:
    """Drops a prefix from the names that have it. The others get a '/', so that none is taken for a ViT weight."""
    return {k.removeprefix(prefix) if k.startswith(prefix) else f'/{k}': v for k, v in state.items()}


def join_qkv(state: State, names: tuple[str, str, str] = ('query', 'key', 'value')) -> State:
    """Joins ``attn.query``, ``attn.key`` and ``attn.value`` to ``attn.qkv``, where all three are there."""
    joined = dict(state)
    for name in state:
        if match := re.fullmatch(rf'(blocks\.\d+\.attn\.){names[0]}(\.weight|\.bias)', name):
            parts = [f'{match[1]}{part}{match[2]}' for part in names]
            if all(part in state for part in parts):
                joined[f'{match[1]}qkv{match[2]}'] = join([joined.pop(part) for part in parts], name)
    return joined


def join(parts: list[Tensor], name: str) -> Tensor:
    """Joins query, key and value, each (D, ...), to (3D, ...).

    Raises:
        ValueError: they differ in shape or type, which joining would hide.
    """
    if len({(part.shape, part.dtype) for part in parts}) > 1 or not parts[0].ndim:
        raise ValueError(f'{name}: query, key and value differ in shape or type: '
                         f'{[(tuple(part.shape), part.dtype) for part in parts]}')
    return torch.cat(parts)

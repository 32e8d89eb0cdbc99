"""Renaming a ViT from timm's names to the layouts of other libraries: the inverse of :mod:`.formats`.

Each function takes and returns a state dict, and raises a ValueError for a weight that its layout has no name for.
"""

from collections.abc import Callable

from .formats import State, rename

OPENMMLAB = ((r'^norm\.', 'ln1.'), (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
             (r'^(blocks\.\d+)\.norm([12])\.', r'\1.ln\2.'), (r'^(blocks\.\d+)\.ls1\.gamma$', r'\1.attn.gamma1.weight'),
             (r'^(blocks\.\d+)\.ls2\.gamma$', r'\1.ffn.gamma2.weight'),
             (r'^(blocks\.\d+)\.mlp\.fc1\.', r'\1.ffn.layers.0.0.'),
             (r'^(blocks\.\d+)\.mlp\.fc2\.', r'\1.ffn.layers.1.'))
TO_BACKBONE = ((r'^blocks\.', 'layers.'), ('^', 'backbone.'))


def as_timm(state: State) -> State:
    """Keeps the names. With registers, adds the position of CLS to the CLS token, because timm has none for it."""
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


EXPORTS: dict[str, Callable[[State], State]] = {
    'timm': as_timm, 'mmpretrain': as_mmpretrain, 'mmsegmentation': as_mmsegmentation, 'mmseg_gpt': as_mmseg_gpt}


def refuse(state: State, library: str, *names: str) -> None:
    """Refuses weights that the ViT of ``library`` does not have.

    Raises:
        ValueError: one of ``names`` is in ``state``.
    """
    for name in names:
        if name in state:
            raise ValueError(f'{library} has no place for {name}: take the layout timm or mmseg_gpt')

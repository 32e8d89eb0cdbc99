"""Filling a ViT from a pretrained file, completely or not at all."""

import math
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ..models.vit import resize_pos_embed
from .compare import differences
from .formats import State, to_timm
from .read import CheckpointError, read_state_dict

# Weights a pretrained file may hold that a backbone has no use for: MAE's decoder, classification and
# projection heads, the final norm where the backbone has none, and adapters of our own checkpoints.
LEFT_OVER = ('decoder_', 'mask_token', 'head.', 'pre_logits.', 'norm.', 'fc_norm.', 'prompt.', 'temperature')


@WEIGHT_INITIALIZERS.register_module()
class PretrainedViT:
    """``init_cfg`` of :class:`GatedPromptViT`: loads a pretrained ViT strictly.

    Args:
        checkpoint: A local file in any layout of :mod:`mmseg_gpt.checkpoints.formats`.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        load_vit(module, self.checkpoint)


def load_vit(backbone: nn.Module, path: str | Path) -> None:
    """Fills every ViT weight of ``backbone`` from ``path``; prompts, gates and temperatures stay.

    The position embedding is resized (bicubic) where the grid differs, and the log says so.

    Args:
        backbone: A :class:`GatedPromptViT`.
        path: A local checkpoint file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: a key is missing, left over, misshapen or not finite. Nothing is changed then.
    """
    try:
        content = read_state_dict(path)
        layout, state = to_timm(content)
    except ValueError as error:
        raise CheckpointError(f'{path} is not a ViT checkpoint I know: {error}') from error
    wanted = backbone.vit_state()
    if 'pos_embed' in state:
        state['pos_embed'] = fit_pos_embed(state['pos_embed'], wanted['pos_embed'], backbone.grid, path,
                                           may_be_oblong=layout.name == 'mmseg_gpt')
    problems = differences(wanted, state, may_be_left_over=LEFT_OVER)
    heads, file_heads = backbone.arch['num_heads'], layout.num_heads(content)
    if file_heads not in (None, heads):
        problems.append(f'  num_heads (file {file_heads}, config {heads}): set it in arch, which can be a dict')
    if problems:
        raise CheckpointError(f'{path} (read as: {layout.name}) does not fill the backbone. '
                              f'{likely_cause(wanted, state)}\n' + '\n'.join(problems))
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])
    print_log(f'backbone: all {len(wanted)} ViT weights loaded from {path} (read as: {layout.name})', logger='current')


def fit_pos_embed(source: Tensor, target: Tensor, grid: tuple[int, int], path: str | Path,
                  may_be_oblong: bool) -> Tensor:
    """Resizes the file's position embedding (1, 1 + n*n, D) to the backbone's grid, if it has another.

    As many patches need not mean the same grid: 196 are 14x14 in a published file, and 7x28 in an oblong
    config. Only our own files are taken to be oblong (``may_be_oblong``) where they could be square.
    """
    if source.ndim != 3 or source.shape[1] < 2 or source.shape[-1] != target.shape[-1]:
        return source
    side = math.isqrt(source.shape[1] - 1)
    is_square = 1 + side**2 == source.shape[1]
    if source.shape == target.shape and (may_be_oblong or not is_square or grid == (side, side)):
        return source
    if not is_square:
        raise CheckpointError(f'{path}: pos_embed has {source.shape[1]} entries, which is not one CLS token and a '
                              'square grid, so it cannot be resized to the grid of the config')
    print_log(f'backbone: pos_embed resized from {side}x{side} to {grid[0]}x{grid[1]} patches', logger='current')
    return resize_pos_embed(source.float(), (side, side), grid)


def likely_cause(wanted: State, state: State) -> str:
    """Says in words how the ViT in the file differs from the one in the config."""
    there, here = describe(state), describe(wanted)
    return f'The file holds {there}, the config asks for {here}.' if there != here else ''


def describe(state: State) -> str:
    """Names a ViT by what its state dict shows."""
    weight = state.get('patch_embed.proj.weight')
    blocks = {k.split('.')[1] for k in state if k.startswith('blocks.')}
    if weight is None or weight.ndim != 4:
        return f'no patch embedding and {len(blocks)} blocks'
    name = {384: 'ViT-S', 768: 'ViT-B', 1024: 'ViT-L', 1280: 'ViT-H'}.get(weight.shape[0], 'a ViT')
    return f'{name} (width {weight.shape[0]}, {len(blocks)} blocks, patch {weight.shape[-1]})'

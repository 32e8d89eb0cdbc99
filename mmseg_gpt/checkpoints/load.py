"""Filling a ViT from a pretrained file, completely or not at all."""

import re
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from .fetch import fetch
from .fit import differences, kind_of
from .formats import Recognised, State, to_timm
from .read import CheckpointError, read_file, settings_in, weights_in
from .shape import VitShape, grid_of, shape_of

# Weights of the final norm, which the backbone has only for classification.
FINAL_NORM = ('norm.weight', 'norm.bias')
# Of the layer norms. No weight shows it, and 1e-6, that of all other ViTs, would give slightly other outputs.
DINOV3_EPSILON = 1e-5


@WEIGHT_INITIALIZERS.register_module()
class PretrainedViT:
    """Strict loader of a pretrained ViT, for the ``init_cfg`` of :class:`GatedPromptViT`.

    Every weight must be there, have the right shape and be finite. Swapped weights of one shape and changed numbers
    are noticed only with ``sha256``.

    Args:
        checkpoint: A file in any layout of :mod:`mmseg_gpt.checkpoints.formats`, the http(s) address of one, or
            ``timm://NAME`` for a model of timm. The latter two are fetched once into the cache of torch.hub.
        sha256: The SHA-256 of the file, as ``sha256sum`` prints it; any other file is refused.
        key: Which model to take of a file with several, such as 'model_ema' or 'teacher': a part of the file, or what
            the names of its weights begin with.
    """

    def __init__(self, checkpoint: str, sha256: str | None = None, key: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.sha256 = sha256
        self.key = key

    def __call__(self, module: nn.Module) -> None:
        load_vit(module, fetch(self.checkpoint, self.sha256), self.key)


def load_vit(backbone: nn.Module, path: str | Path, key: str | None = None) -> None:
    """Fills every ViT weight of ``backbone`` from ``path``; prompts, gates and temperatures stay as they are.

    If the grid differs, the position embedding is resized (bicubic). If images have another number of channels, the
    patch embedding is adapted (:func:`adapt_channels`). The log says so.

    Args:
        backbone: A :class:`GatedPromptViT`.
        path: A local checkpoint file.
        key: Which model to take of a file with several, see :class:`PretrainedViT`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: a weight is missing, left over, misshapen or not finite, or there are several models. The
            backbone is then as it was.
    """
    fill_vit(backbone, read_file(path), path, key)


def fill_vit(backbone: nn.Module, content: object, path: str | Path, key: str | None = None) -> None:
    """Does what :func:`load_vit` does, with the ``content`` of a file that has been read."""
    found = recognise(weights_in(content, path, key), path)
    wanted = backbone.vit_state()
    state = with_zero_biases(found, wanted)
    adapted_from = adapt_patch_embed(state, backbone.in_channels)
    there, here = shape_of(state), shape_of(wanted)
    heads, file_heads = backbone.arch['num_heads'], found.num_heads
    resized_from = side_to_resize(there, here, backbone.grid, may_be_oblong=found.name.startswith('mmseg_gpt'))
    if resized_from and 'pos_embed' in wanted and state['pos_embed'].is_floating_point():
        state['pos_embed'] = backbone.fit_pos_embed(state['pos_embed'], (resized_from, resized_from))
    problems = differences(wanted, state, (*found.left_over, *FINAL_NORM))
    if file_heads not in (None, heads):
        problems.append(f'  num_heads (file {file_heads}, config {heads}): set it in arch, which can be a dict')
    if found.rotary not in (None, backbone.rotary):
        problems.append(f"  rotary (file {found.rotary}, config {backbone.rotary}): set it to '{found.rotary}'")
    grid = trained_grid(content)
    if grid not in (None, backbone.grid) and there.positions == here.positions:
        problems.append('  pos_embed (file {}x{} patches, config {}x{}): turn img_size'.format(*grid, *backbone.grid))
    epsilon = backbone.blocks[0].norm1.eps
    if found.name.startswith('DINOv3') and epsilon != DINOV3_EPSILON:
        problems.append(f'  norm_eps (DINOv3 {DINOV3_EPSILON:g}, config {epsilon:g}): set it to {DINOV3_EPSILON:g}')
    if problems:
        problems += found.advice()
        raise CheckpointError('\n'.join([
            f'{path} (read as: {found}) does not fill the backbone. {likely_cause(there, here)}', *problems]))
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])
    if resized_from:
        print_log(f'backbone: pos_embed resized from {resized_from}x{resized_from} to '
                  f'{backbone.grid[0]}x{backbone.grid[1]} patches', logger='current')
    if adapted_from:
        how = 'summed' if backbone.in_channels == 1 else f'repeated in turn and multiplied by 3/{backbone.in_channels}'
        print_log(f'backbone: patch embedding of {adapted_from} channels turned into one of {backbone.in_channels} by '
                  f'timm\'s rule: its weights were {how}', logger='current')
    print_log(f'backbone: all {len(wanted)} ViT weights loaded from {path} (read as: {found})', logger='current')


def recognise(content: dict[str, Tensor], path: str | Path) -> Recognised:
    """Recognises the layout of the weights in the file ``path``.

    Raises:
        CheckpointError: the layout is unknown, or is not one ViT.
    """
    try:
        return to_timm(content)
    except ValueError as error:
        raise CheckpointError(f'{path} is not a ViT checkpoint I know: {error}') from error


def adapt_patch_embed(state: State, in_channels: int) -> int:
    """Adapts the patch embedding in ``state`` to images of ``in_channels`` channels, if it is one of 3.

    Returns:
        int: The number of channels that it had, if it was adapted, else 0.
    """
    weight = state.get('patch_embed.proj.weight')
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or in_channels == 3 or kind_of(weight) != 'real':
        return 0
    state['patch_embed.proj.weight'] = adapt_channels(weight, in_channels)
    return 3


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Turns a patch embedding of 3 channels (D, 3, p, p) into one of ``in_channels`` (D, C, p, p), by timm's rule.

    For 1 channel the weights are summed, so that a grey image gives what it gives as three equal channels. For more
    channels they are repeated in turn (red, green, blue, red, ...) and multiplied by ``3 / in_channels``. Source:
    ``timm.models.adapt_input_conv``.
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(in_channels) % 3] * (3 / in_channels)


def with_zero_biases(found: Recognised, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds biases of 0 to a DINOv3 without biases of queries, keys and values, if the backbone has them.

    In all released DINOv3 they are 0, which is why most of timm's files leave them out.
    """
    biases = [name for name in wanted if name.endswith('.attn.qkv.bias')]
    if found.name != 'DINOv3 of timm' or any(re.search(r'\.attn\.(q|v|qkv)[._]bias$', name) for name in found.state):
        return dict(found.state)
    return {**found.state, **{name: torch.zeros_like(wanted[name]) for name in biases}}


def trained_grid(content: object) -> tuple[int, int] | None:
    """Returns the rows and columns of patches with which a file of ours was trained; None for those of others."""
    model = settings_in(content).get('model') or {}
    backbone = model.get('module', model).get('backbone') or {}
    return grid_of(backbone['img_size'], backbone.get('patch_size', 16)) if 'img_size' in backbone else None


def side_to_resize(there: VitShape, here: VitShape, grid: tuple[int, int], may_be_oblong: bool) -> int:
    """Returns the side of the file's grid if its position embedding must be resized to ``grid``, else 0.

    Equal numbers of patches need not mean the same grid: 196 patches are 14x14 in a published file, and perhaps
    7x28 in a config. Only files of our own (``may_be_oblong``) are taken to have the config's grid then.
    """
    if there.positions == here.positions and (may_be_oblong or grid == (there.side, there.side)):
        return 0
    return there.side if there.width == here.width else 0


def likely_cause(there: VitShape, here: VitShape) -> str:
    """Says how the ViT in the file differs from the one in the config, and what to set in the config."""
    sentences = [f'The file holds {there}, the config asks for {here}.'] if str(there) != str(here) else []
    advice = [f'{option}={value!r}' for option, value, other in (
        ('patch_size', there.patch, here.patch), ('layer_scale', there.layer_scale, here.layer_scale),
        ('num_registers', there.registers, here.registers), ('in_channels', there.channels, here.channels),
        ('gated_mlp', there.gated_mlp, here.gated_mlp),
        ('rotary', *(('bfloat16' if shape.rotary else None) for shape in (there, here))),
        ('qkv_bias', *(('qv' if shape.rotary else 'qkv') if shape.qkv_bias else '' for shape in (there, here))),
    ) if value != other]
    if there.patch and (there.width, there.blocks) != (here.width, here.blocks):
        advice.insert(0, f'arch (for {there.name}, {there.blocks} blocks)')
    if advice and there.patch:
        sentences.append(f'To use it, set model.backbone: {", ".join(advice)}.')
    if not there.side and there.positions and there.positions != here.positions:
        sentences.append(f'Its pos_embed has {there.positions} entries, which is not one CLS token and a square grid, '
                         'so it cannot be resized to the grid of the config.')
        if there.registers:
            sentences.append('A timm model with registers has no position of CLS: if one is the backbone in this file, '
                             "take it alone, by key='backbone'.")
    return ' '.join(sentences)

"""Loading a checkpoint into a model completely or not at all, and checkpoints without the frozen ViT.

An adapter-only checkpoint holds the trained weights and the buffers. Its ``meta['frozen']`` names the pretrained file
of the frozen weights and holds their SHA-256. So another copy of the same weights is accepted, and any other refused.
"""

import copy
import hashlib
import json
from pathlib import Path

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from .checkpoints.digest import bits_of
from .checkpoints.fetch import fetch
from .checkpoints.fit import differences
from .checkpoints.load import load_vit
from .checkpoints.read import CheckpointError, weights_in
from .files import file_sha256
from .models import GatedPromptViT
from .models.updates import rename_old

# The settings of the backbone that decide the names and shapes of its frozen weights. They are plain values from which
# no object is built, because a file must not say what to build.
VIT_SETTINGS = ('arch', 'img_size', 'patch_size', 'layer_scale', 'num_registers', 'in_channels', 'rotary', 'gated_mlp',
                'qkv_bias')


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside its wrappers for data-parallel training and test-time augmentation, if it has any."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def load_model_state(model: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Fills ``model`` from a checkpoint of our own, whose tensors must agree in name, shape and kind and be finite.

    The frozen ViT of an adapter-only checkpoint is read from the pretrained file that the config names.

    Args:
        model: The model of the config, possibly wrapped.
        checkpoint: The content of a file, or a bare state dict.
        path: Name of the file, for messages.

    Raises:
        CheckpointError: the checkpoint does not fit. The model is then as it was, except that the frozen ViT of an
            adapter-only checkpoint may have been loaded.
    """
    model = unwrap(model)
    state = checkpoint.get('state_dict', checkpoint)
    frozen = checkpoint.get('meta', {}).get('frozen')
    if frozen:
        load_frozen_vit(model, frozen, path)
        state = {**frozen_state(model), **state}
    state = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, GatedPromptViT):
            rename_old(module, state, f'{name}.' if name else '')
    problems = differences(model.state_dict(), state)
    if problems:
        raise CheckpointError(
            f'the checkpoint {path} does not fit the model of this config, so nothing was loaded:\n' +
            '\n'.join(problems) + '\nUse the config the checkpoint was trained with. A pretrained ViT belongs in '
            'model.backbone.init_cfg=dict(type="PretrainedViT", checkpoint=...), not in load_from.')
    model.load_state_dict(state)


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the frozen ViT weights of ``model`` by their names in its state dict; empty if nothing is frozen."""
    return {f'{prefix}.{name}' if prefix else name: weight
            for prefix, backbone in frozen_backbones(model).items() for name, weight in backbone.vit_state().items()}


def frozen_backbones(model: nn.Module) -> dict[str, GatedPromptViT]:
    """Returns the frozen backbones in ``model``, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, GatedPromptViT) and m.frozen}


def frozen_source(model: nn.Module, needed_by: str = 'adapter_only') -> dict:
    """Describes the frozen weights that an adapter-only checkpoint leaves out.

    Args:
        model: The model.
        needed_by: What messages say needs them.

    Returns:
        dict: ``source`` and ``sha256`` of the pretrained file, ``weights_sha256``, and the shape of ``pos_embed``,
        None if there is none.

    Raises:
        CheckpointError: nothing is frozen, or no pretrained file is named, or that file does not hold the frozen
            weights, so that the checkpoint could never be loaded again.
    """
    backbones = frozen_backbones(model)
    if len(backbones) != 1:
        raise CheckpointError(f'adapter_only needs one frozen GatedPromptViT, this model has {len(backbones)}; without '
                              'adapter_only the whole model is saved')
    (backbone, ) = backbones.values()
    path = pretrained_file(backbone, needed_by)
    digest, twin = weights_sha256(backbone), copy.deepcopy(backbone)
    load_vit(twin, path, backbone.init_cfg.get('key'))
    if weights_sha256(twin) != digest:
        raise CheckpointError(f'{needed_by}: the frozen ViT is not the one in {path} (was another one loaded over it '
                              'by load_from?), so a checkpoint without it could not be loaded again')
    return dict(source=path.name, sha256=file_sha256(path), weights_sha256=digest,
                pos_embed=shape_of_positions(backbone))


def load_frozen_vit(model: nn.Module, frozen: dict, path: str | Path) -> None:
    """Fills the frozen ViT from the file the config names, and refuses it if the checkpoint ``path`` needs another."""
    backbones = frozen_backbones(model)
    if len(backbones) != 1:
        raise CheckpointError(f'{path} holds adapters only, and needs a model with one frozen GatedPromptViT; this '
                              f'config has {len(backbones)}')
    (backbone, ) = backbones.values()
    if shape_of_positions(backbone) != frozen['pos_embed']:
        raise CheckpointError(f'{path} was trained with another img_size or patch_size: its pos_embed had the shape '
                              f'{frozen["pos_embed"]}, in this config it has {shape_of_positions(backbone)}')
    try:
        source = pretrained_file(backbone, needed_by=path)
    except CheckpointError as error:
        address = f', from {frozen["address"]}' if frozen.get('address') else ''
        raise CheckpointError(f'{error}\nThe adapters were trained on {frozen["source"]} (SHA-256 {frozen["sha256"]})'
                              f'{address}: name that file in the config, or by --vit') from error
    load_vit(backbone, source, backbone.init_cfg.get('key'))
    # One of the two must agree. Other files can hold the same weights, and a resized position embedding may differ in
    # its last bits from machine to machine.
    if file_sha256(source) != frozen['sha256'] and weights_sha256(backbone) != frozen['weights_sha256']:
        raise CheckpointError(f'{path} holds adapters of another ViT than {source}: they were trained on '
                              f'{frozen["source"]} (SHA-256 {frozen["sha256"]}). Set '
                              'model.backbone.init_cfg.checkpoint, or --vit, to that file')


def shape_of_positions(backbone: GatedPromptViT) -> list[int] | None:
    """Returns the shape of the position embedding, None for a ViT with rotary positions."""
    return None if backbone.pos_embed is None else list(backbone.pos_embed.shape)


def pretrained_file(backbone: GatedPromptViT, needed_by: str | Path = 'adapter_only') -> Path:
    """Returns the local pretrained file that the backbone's config names, and fetches it if need be.

    Raises:
        CheckpointError: the config names no file, or it is not there.
    """
    init_cfg = backbone.init_cfg
    if not isinstance(init_cfg, dict) or 'checkpoint' not in init_cfg:
        raise CheckpointError(f'{needed_by}: the frozen ViT is read from the file in '
                              'model.backbone.init_cfg=dict(type="PretrainedViT", checkpoint=...), which is not set')
    try:
        return fetch(init_cfg['checkpoint'], init_cfg.get('sha256'))
    except FileNotFoundError as error:
        raise CheckpointError(f'{needed_by} needs the pretrained ViT in model.backbone.init_cfg: {error}') from error


def weights_sha256(backbone: GatedPromptViT) -> str:
    """Returns the SHA-256 of the ViT's weights in memory: their names and float32 values, sorted by name."""
    digest = hashlib.sha256()
    for name, weight in sorted(backbone.vit_state().items()):
        digest.update(name.encode())
        digest.update(bits_of(weight.float()))
    return digest.hexdigest()


def is_adapter_only(content: object) -> bool:
    """Says whether the content of a file is an adapter-only checkpoint."""
    meta = content.get('meta') if isinstance(content, dict) else None
    return isinstance(meta, dict) and isinstance(meta.get('frozen'), dict)


def with_frozen_state(checkpoint: dict, vit: str, path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict of the whole model, given an adapter-only checkpoint and its pretrained ViT.

    Args:
        checkpoint: The content of the file.
        vit: Path or address of the pretrained ViT with which the checkpoint was trained.
        path: The checkpoint's name, for messages.

    Raises:
        CheckpointError: ``vit`` is another ViT, or the checkpoint does not hold the config of its model.
    """
    try:
        settings = json.loads(checkpoint['meta']['settings'])['model']['backbone']
        options = {name: settings[name] for name in VIT_SETTINGS if name in settings}
        out_type = 'featmap' if settings.get('out_type', 'featmap') == 'featmap' else 'cls_token'
        key = (settings.get('init_cfg') or {}).get('key')
        backbone = GatedPromptViT(**options, out_type=out_type, init_cfg=dict(
            type='PretrainedViT', checkpoint=vit, key=key if isinstance(key, str) else None))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f'{path} holds adapters only, and not the config of their model: {error!r}') from error
    load_frozen_vit(backbone, checkpoint['meta']['frozen'], path)
    frozen = {f'backbone.{name}': weight.detach() for name, weight in backbone.vit_state().items()}
    return {**frozen, **weights_in(checkpoint, path)}

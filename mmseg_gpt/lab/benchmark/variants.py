"""The models that are compared, from one config: mmsegmentation's own, the paper's and ours."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ...checkpoints.export import as_mmsegmentation
from ...models.complete import explicit
from ...models.half import round_weights
from ...models.vit import ARCHS, Attention, read_arch
from .plain_vit import PaperViT

ARCHITECTURES = {'tiny': dict(embed_dims=32, num_layers=3, num_heads=2, mlp_ratio=4), **ARCHS}
MODELS_COMPARED = ('mmseg-full', 'paper', 'ours', 'ours-cp', 'ours-half', 'ours-half-fused')
ADAPTERS = ('prompt.', 'temperature')


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model and of its input.

    Attributes:
        arch: A name in ``ARCHITECTURES``.
        depth: Number of blocks, at least 3; None for that of ``arch``.
        image: Side of a training image in pixels. An evaluated image has this height and 4/3 of it as its width.
        classes: Number of classes.
        prompts: Number of prompts.
        channels: Width of the heads.
        batch: Number of training images.
    """
    arch: str = 'base'
    depth: int | None = None
    image: int = 512
    classes: int = 150
    prompts: int = 100
    channels: int = 256
    batch: int = 1

    @property
    def vit(self) -> dict:
        """Architecture as the backbones take it.

        Raises:
            ValueError: ``depth`` is below 3, the number of heads.
        """
        arch = ARCHITECTURES[self.arch]
        depth = arch['num_layers'] if self.depth is None else self.depth
        if depth < 3:
            raise ValueError(f'--depth {depth}: the three heads need 3 blocks at least')
        return {**arch, 'num_layers': depth}

    @property
    def evaluated(self) -> tuple[int, int]:
        """Height and width of the evaluated image: 512x683 for 512, the size of many images of ADE20K."""
        return self.image, round(self.image * 683 / 512)


class Variant(NamedTuple):
    """One variant to measure.

    Attributes:
        name: Name in the tables: a model, and ``-bf16`` or ``-compiled`` or both.
        model: One of ``MODELS_COMPARED``.
        bf16: Whether the forward runs under bfloat16 autocast. ``--amp bf16`` also keeps the frozen ViT so, as
            'ours-half-bf16' does.
        compiled: Whether the backbone is compiled.
    """
    name: str
    model: str
    bf16: bool
    compiled: bool


def parse_variant(name: str) -> Variant:
    """Reads the name of a variant, such as 'ours-bf16-compiled'.

    Raises:
        ValueError: ``name`` is not the name of a variant, or of one that cannot be computed.
    """
    compiled = name.endswith('-compiled')
    rest = name.removesuffix('-compiled')
    bf16, model = rest.endswith('-bf16'), rest.removesuffix('-bf16')
    if model not in MODELS_COMPARED:
        raise ValueError(f'variant "{name}" is unknown: one of {", ".join(MODELS_COMPARED)}, and then -bf16 or '
                         '-compiled or -bf16-compiled if wanted')
    if model.startswith('ours-half') and not bf16:
        raise ValueError(f'variant "{name}" cannot be computed: a ViT in half precision needs autocast, '
                         f'{model}-bf16')
    return Variant(name, model, bf16, compiled)


def read_config(path: str | Path) -> Config:
    """Reads the config of our model.

    Raises:
        SystemExit: its adapters are not the paper's, so there is nothing to compare it with.
    """
    cfg = explicit(Config.fromfile(path))
    backbone = cfg.model.backbone
    if backbone.get('prompt', {}).get('type') != 'GatedPrompt' or not backbone.get('temperature'):
        raise SystemExit(f'{path}: the benchmark needs a backbone with GatedPrompt and temperature')
    return cfg


def ours(cfg: Config, sizes: Sizes) -> ConfigDict:
    """Returns our model in other sizes, without pretrained weights; heads stay at the same relative depth."""
    model, arch = copy.deepcopy(cfg.model), sizes.vit
    depth = read_arch(model.backbone.get('arch', 'base'))['num_layers']
    taps = tuple(round((i + 1) * arch['num_layers'] / depth) - 1 for i in model.backbone.out_indices)
    model.backbone.update(arch=arch, img_size=sizes.image, out_indices=taps, init_cfg=None)
    model.backbone.prompt.num_tokens = sizes.prompts
    for head in [model.decode_head, *model.auxiliary_head]:
        head.update(in_channels=arch['embed_dims'], channels=sizes.channels, num_classes=sizes.classes)
    model.data_preprocessor.size = (sizes.image, sizes.image)
    strides = [stride * sizes.image // crop for stride, crop in zip(model.test_cfg.stride, model.test_cfg.crop_size)]
    model.test_cfg.update(crop_size=(sizes.image, sizes.image), stride=strides)
    return model


def ours_checkpointed(cfg: Config, sizes: Sizes) -> ConfigDict:
    """Returns our model with gradient checkpointing."""
    config = ours(cfg, sizes)
    config.backbone.with_cp = True
    return config


def stock(config: dict) -> ConfigDict:
    """Replaces our classes in a config by mmsegmentation's: our names are theirs with 'Lean' in front."""
    def strip(value: object, key: str = '') -> object:
        if isinstance(value, dict):
            return {k: strip(v, k) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(strip(v) for v in value)
        return value.removeprefix('Lean') if key == 'type' else value

    return ConfigDict(strip(config))


def paper(cfg: Config, sizes: Sizes) -> ConfigDict:
    """Returns the paper's backbone under mmsegmentation's own heads and segmentor."""
    config = stock(ours(cfg, sizes))
    prompt = {k: v for k, v in config.backbone.prompt.items() if k != 'type'}
    kept = {k: v for k, v in config.backbone.items() if k in ('arch', 'img_size', 'out_indices')}
    config.backbone = dict(kept, type=PaperViT, **prompt)
    return config


def mmseg_full(cfg: Config, sizes: Sizes) -> ConfigDict:
    """Returns mmsegmentation's ViT as in its SETR configs, fully trained, under its own heads and segmentor."""
    config = stock(ours(cfg, sizes))
    # patch_bias: pretrained ViTs have one, and mmsegmentation's default would drop it.
    config.backbone = dict(
        sizes.vit, type='mmseg.VisionTransformer', img_size=(sizes.image, sizes.image), patch_size=16,
        out_indices=config.backbone.out_indices, drop_rate=0., norm_cfg=dict(type='LN', eps=1e-6, requires_grad=True),
        with_cls_token=True, interpolate_mode='bilinear', patch_bias=True)
    return config


def build(model: str, cfg: Config, sizes: Sizes, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """Builds one of ``MODELS_COMPARED``, with BN in the place of SyncBN as on one device.

    Args:
        model: Its name.
        cfg: The config of our model.
        sizes: Sizes of the model.
        weights: A state dict of our model to load; None leaves the weights random.
    """
    makers = {'ours': ours, 'ours-cp': ours_checkpointed, 'ours-half': ours, 'ours-half-fused': ours, 'paper': paper,
              'mmseg-full': mmseg_full}
    config = makers[model](cfg, sizes)
    built = revert_sync_batchnorm(construct(config))
    if weights is not None:
        built.load_state_dict(weights if model != 'mmseg-full' else without_adapters(weights))
    if model.startswith('ours-half'):
        round_weights(built.backbone, torch.bfloat16)
    if model == 'ours-half-fused':
        for layer in built.modules():
            if isinstance(layer, Attention):
                layer.fused = True
    return built


def construct(config: dict, **arguments) -> nn.Module:
    """Builds a module of mmsegmentation, as its runner would."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build({**config, **arguments})


def without_adapters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames a state dict of our model to mmsegmentation's names, without prompts, gates and temperatures."""
    backbone = {k.removeprefix('backbone.'): v for k, v in weights.items() if k.startswith('backbone.')}
    vit = {k: v for k, v in backbone.items() if not k.startswith(ADAPTERS)}
    return {**{k: v for k, v in weights.items() if not k.startswith('backbone.')}, **as_mmsegmentation(vit)}


def draw_weights(cfg: Config, sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Draws a state dict of our model, the same for the same seed."""
    torch.manual_seed(seed)
    return build('ours', cfg, sizes).state_dict()

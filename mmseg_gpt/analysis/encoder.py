"""A pretrained ViT without prompts and temperatures, which turns images into the output of any of its blocks."""

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..adapters import VIT_SETTINGS, weights_sha256
from ..checkpoints import fetch
from ..checkpoints.formats import UPDATE
from ..checkpoints.load import fill_vit
from ..checkpoints.read import read_file, weights_in
from ..models import GatedPromptViT
from ..settings import type_name
from ..wording import listed


class Encoder(nn.Module):
    """A frozen ViT with the normalisation of its images.

    Args:
        vit: The ViT. Any prompts and temperatures of it are not used.
        mean: Means of red, green and blue, on the scale of 0 to 255; of blue, green and red if not ``rgb``.
        std: Standard deviations, in the same order.
        rgb: Whether the ViT takes red first.
    """

    def __init__(self, vit: GatedPromptViT, mean: list[float], std: list[float], rgb: bool = True) -> None:
        super().__init__()
        self.vit = vit.requires_grad_(False).eval()
        self.rgb = rgb
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1) / 255)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1) / 255)

    def forward(self, images: Tensor, block: int) -> Tensor:
        """Returns all tokens after a block.

        Args:
            images: Images (B, 3, H, W), red first, in [0, 1].
            block: The block, counted from 1.

        Returns:
            Tensor: CLS, registers and patches (B, 1 + R + h*w, D), before any final norm.

        Raises:
            ValueError: there is no such block.
        """
        self.check(block)
        images = images if self.rgb else images.flip(1)
        tokens, grid = self.vit.embed((images - self.mean) / self.std)
        rotation = self.vit.rotation(grid)
        for each in self.vit.blocks[:block]:
            tokens = each(tokens, rotation=rotation)
        return tokens

    def check(self, block: int) -> None:
        """Raises a ValueError if there is no such block."""
        if not 1 <= block <= len(self.vit.blocks):
            raise ValueError(f'there is no block {block}: the ViT has blocks 1 to {len(self.vit.blocks)}')

    def identity(self) -> dict:
        """Returns all that decides the output: SHA-256 of the weights, heads, epsilon of the norms, normalisation."""
        block = self.vit.blocks[0]
        rotary = {} if self.vit.rotary is None else dict(rotary=self.vit.rotary)
        return dict(vit=weights_sha256(self.vit), num_heads=block.attn.num_heads, norm_eps=block.norm1.eps, **rotary,
                    mean=self.mean.flatten().tolist(), std=self.std.flatten().tolist(), rgb=self.rgb)


def read_encoder(cfg: Config, size: int) -> Encoder:
    """Builds the ViT of a config and loads its pretrained file.

    Args:
        cfg: Config with a ``GatedPromptViT``, whose ``init_cfg`` names the file, and a ``data_preprocessor``.
        size: Side of the images in pixels; the position embedding of the file is resized to it, once.

    Raises:
        ValueError: the config has no such backbone, no pretrained file or no normalisation, or the file holds updates
            of a ViT's layers, such as LoRA.
        CheckpointError: the file does not fill the ViT.
        FileNotFoundError: there is no such file.
    """
    backbone = cfg.model.get('backbone') or {}
    if type_name(backbone) != 'GatedPromptViT':
        raise ValueError(f'{cfg.filename}: the backbone must be a GatedPromptViT, this one is {backbone.get("type")}')
    if backbone.get('in_channels', 3) != 3:
        raise ValueError(f'{cfg.filename}: the ViT takes images of {backbone["in_channels"]} channels, not pictures')
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if not preprocessor.get('mean') or not preprocessor.get('std'):
        raise ValueError(f'{cfg.filename}: data_preprocessor has no mean and std, so the normalisation of images is '
                         'not known')
    source = backbone.get('init_cfg') or {}
    if 'checkpoint' not in source:
        raise ValueError(f'{cfg.filename} names no pretrained ViT: give a checkpoint, or set model.backbone.init_cfg')
    options = {name: backbone[name] for name in (*VIT_SETTINGS, 'norm_eps') if name in backbone}
    vit = GatedPromptViT(**{**options, 'img_size': size})
    path, key = fetch(source['checkpoint'], source.get('sha256')), source.get('key')
    content = read_file(path)
    if updates := [name for name in weights_in(content, path, key) if UPDATE.fullmatch(name)]:
        raise ValueError(f'{path} holds updates of the layers of its ViT ({listed(updates, 1)}), and only the ViT '
                         'itself would be used, as it was before its training: give the file of a whole ViT')
    fill_vit(vit, content, path, key)
    # Files are read with blue first; each package has its own name for the option that swaps red and blue.
    rgb = bool(preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb'))
    return Encoder(vit, preprocessor['mean'], preprocessor['std'], rgb)

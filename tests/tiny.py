"""A segmentation run so small that it starts, trains and validates in a second: dataset, pretrained ViT and config."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from torch import nn

from mmseg_gpt.engine.config import find_config

ROOT = Path(__file__).parents[1]
CLASSES = 9
WIDTH, HEIGHT = 45, 37  # neither is a multiple of a patch
ARCH = dict(embed_dims=8, num_layers=3, num_heads=2, mlp_ratio=2)
SPLITS = ('training', 'validation')


class TinySegmentor(nn.Module):
    """A frozen prompted backbone and a head, with the names the configs rely on."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = MODELS.build(dict(
            type='GatedPromptViT', arch=dict(embed_dims=8, num_layers=3, num_heads=2), img_size=32,
            prompt=dict(type='GatedPrompt', num_tokens=2), temperature=True))
        self.decode_head = nn.Conv2d(8, 4, 1)


def image_path(root: Path, split: str, number: int) -> Path:
    return root / 'images' / split / f'{number:05d}.jpg'


def label_path(root: Path, split: str, number: int) -> Path:
    return root / 'annotations' / split / f'{number:05d}.png'


def write_data(root: Path, number: int = 2) -> Path:
    """Writes ``number`` pairs for training and for validation: noise, and labels 0 (not labelled) to CLASSES."""
    random = np.random.default_rng(0)
    for path, depth in ((image_path, (3, )), (label_path, ())):
        for split in SPLITS:
            path(root, split, 0).parent.mkdir(parents=True)
            for i in range(number):
                high = 256 if depth else CLASSES + 1
                pixels = random.integers(0, high, (HEIGHT, WIDTH, *depth), dtype=np.uint8)
                Image.fromarray(pixels).save(path(root, split, i))
    return root


def write_run(folder: Path) -> Path:
    """Writes ``data``, ``vit.pth`` and ``small.py`` into ``folder``, from which the config can be run."""
    from mmseg_gpt.models import GatedPromptViT
    write_data(folder / 'data')
    torch.save(dict(model=GatedPromptViT(arch=ARCH, img_size=32, patch_size=8).state_dict()), folder / 'vit.pth')
    small_config().dump(folder / 'small.py')
    return folder


def small_config() -> Config:
    """The demo's config, with ``data`` and ``vit.pth`` in the current folder, and one iteration."""
    cfg = find_config(str(ROOT / 'configs/demo/setr_pup_gpt_mae_sample.py'))
    cfg.model.backbone.update(arch=ARCH, img_size=32, patch_size=8, out_indices=(0, 1, 2))
    cfg.model.backbone.prompt.num_tokens = 2
    cfg.model.backbone.init_cfg.checkpoint = 'vit.pth'
    for head in [cfg.model.decode_head, *cfg.model.auxiliary_head]:
        head.update(in_channels=8, channels=4)
    cfg.model.data_preprocessor.size = (32, 32)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(batch_size=2, num_workers=0, persistent_workers=False)
        cfg[name].dataset.data_root = 'data'
    cfg.train_dataloader.dataset.pipeline[2].scale = (48, 48)
    cfg.train_dataloader.dataset.pipeline[3].crop_size = (32, 32)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.param_scheduler[0].end = 1
    return cfg

"""Runs of the classification demo's config in this process: a few drawn images, a random ViT, two iterations."""

from pathlib import Path

import torch
from mmengine.config import Config
from tiny_run import next_name

from mmseg_gpt.engine import Runner
from mmseg_gpt.lab.drawn import make_image_folder
from mmseg_gpt.models import GatedPromptViT

CONFIG = Path(__file__).parents[1] / 'configs/demo/cls_gpt_shapes.py'


def draw(folder: Path) -> Path:
    """Draws a few images of each class into ``folder/data``."""
    make_image_folder(folder / 'data', pretraining=2, training=3, test=4, processes=1)
    return folder / 'data'


def write_vit(cfg: Config, path: Path, seed: int = 0) -> Path:
    """Writes a random ViT for the backbone of ``cfg``, with weights that make images differ."""
    torch.manual_seed(seed)
    backbone = cfg.model.backbone
    vit = GatedPromptViT(**{k: backbone[k] for k in ('arch', 'img_size', 'patch_size', 'out_type')})
    state = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in vit.state_dict().items()}
    torch.save(state, path)
    return path


def small_config(config: Path, folder: Path, **options) -> Config:
    """A config of the demo, for data and ViT in ``folder``, with two iterations; options have ``__`` for dots."""
    cfg = Config.fromfile(config)
    for name in ('train_dataloader', 'test_dataloader'):
        if name in cfg:
            cfg[name].update(batch_size=5, num_workers=0, persistent_workers=False)
            cfg[name].dataset.data_root = str(folder / 'data')
    cfg.merge_from_dict({
        'train_cfg.max_iters': 2, 'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1, 'param_scheduler.1.end': 2,
        'work_dir': str(folder / 'run'), 'log_level': 'WARNING', 'model.backbone.init_cfg.checkpoint':
        str(folder / 'vit.pth'), **{key.replace('__', '.'): value for key, value in options.items()}})
    cfg.experiment_name = next_name()
    return cfg


def train(cfg: Config) -> Runner:
    """Trains, and returns the runner."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner

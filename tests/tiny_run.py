"""Runs of the main config in small, in this process: a ViT of width 24, drawn images of 64 pixels, few iterations."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from shrink import SIZE, shrink

from mmseg_gpt import compat
from mmseg_gpt.checkpoints import read_file
from mmseg_gpt.engine import Runner
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.drawn import make_dataset
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.settings import flatten

# Formatting the config nicely, even once, takes half of the time of such a run.
compat.formatter_module().FormatCode = lambda text, **_: (text, True)

MAIN = Path(__file__).parents[1] / 'configs/setr_pup_gpt_mae_ade20k.py'
count = itertools.count()


def next_name() -> str:
    """A name for a run: MMEngine keeps one log for each."""
    return f'tiny-{next(count)}'


def tiny_config(folder: Path, **options) -> Config:
    """The main config in small, for data and a pretrained ViT in ``folder``, which are made there if they are not.

    It trains 6 iterations with augmentation, momentum and dropout, saves all 2 and validates at the end.

    Args:
        folder: Where all is.
        options: As in --cfg-options, with ``__`` for dots.
    """
    cfg = shrink(find_config(str(MAIN)))
    data = folder / 'data'
    if not data.exists():
        make_dataset(data, training=6, validation=3, processes=1)
        torch.manual_seed(0)
        torch.save(GatedPromptViT(arch=cfg.model.backbone.arch, img_size=SIZE).state_dict(), folder / 'vit.pth')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(data)
    cfg.merge_from_dict({
        'work_dir': str(folder / 'run'), 'train_cfg.max_iters': 6, 'train_cfg.val_interval': 100,
        'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.max_keep_ckpts': -1,
        'model.backbone.init_cfg.checkpoint': str(folder / 'vit.pth'), 'model.backbone.prompt.num_tokens': 4,
        'model.decode_head.dropout_ratio': 0.1, 'custom_hooks.2.images': 1, 'log_level': 'WARNING'})
    cfg.merge_from_dict({key.replace('__', '.'): copy.deepcopy(value) for key, value in options.items()})
    return cfg


def run(cfg: Config, *hooks: Hook) -> Runner:
    """Trains with further hooks, and returns the runner."""
    cfg = cfg.copy()
    # MMEngine keeps a log and a visualizer for each name, also of runs that have ended.
    cfg.experiment_name = cfg.visualizer.name = next_name()
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


class At(Hook):
    """Does something before one training iteration, counted from 1.

    Args:
        iteration: Which one.
        action: Gets the runner and the batch.
    """
    priority = 'VERY_HIGH'

    def __init__(self, iteration: int, action: Callable[[Runner, dict], object]) -> None:
        self.iteration, self.action = iteration, action

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if runner.iter + 1 == self.iteration:
            self.action(runner, data_batch)


def saved(folder: Path, iteration: int) -> dict:
    """A checkpoint of the run in ``folder``."""
    return read_file(folder / f'run/iter_{iteration}.pth')


def differing(one: dict, other: dict) -> list[str]:
    """The tensors and numbers of weights, optimizer and schedule in which two checkpoints differ."""
    one, other = ({k: v for part in ('state_dict', 'optimizer', 'param_schedulers')
                   for k, v in flatten(checkpoint[part], part).items()} for checkpoint in (one, other))
    assert one.keys() == other.keys() and len(one) > 100
    return [k for k in one if not (torch.equal(one[k], other[k]) if torch.is_tensor(one[k]) else one[k] == other[k])]

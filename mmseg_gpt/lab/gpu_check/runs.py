"""Trainings on drawn data, by the command that users type, and the tests that need a GPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from ...checkpoints import read_file
from ...models import GatedPromptViT
from ...resources import CLONE, CONFIGS, TOOLS
from .numbers import Setting

CONFIG = CONFIGS / 'demo/setr_pup_gpt_mae_sample.py'


def marked_tests(setting: Setting, left: Callable[[], float]) -> dict:
    """Runs the tests that are marked ``cuda``, where the tests are there."""
    folder = CLONE / 'tests'
    if not folder.is_dir():
        return dict(not_run=f'there are no tests in {CLONE}')
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', '-m', 'cuda', str(folder)]
    status, printed = finished(command, left)
    return dict(status=status, printed=printed[-1200:])


def sample_training(setting: Setting, out: Path, left: Callable[[], float]) -> dict:
    """Trains the demo's model for 200 iterations in float32 and in bfloat16, and some in the deterministic mode.

    Those are made twice as usual, and once more with ``--cuda-graph``: weights and losses should be equal.

    Args:
        setting: What is checked.
        out: Folder for data and runs.
        left: Returns the seconds that are left.
    """
    out.mkdir(parents=True, exist_ok=True)
    images = 8 if setting.quick else 200
    status, printed = finished([sys.executable, str(TOOLS / 'make_sample_dataset.py'), '--out', str(out / 'data'),
                                '--images', str(images), '--val-images', '10'], left)
    if status:
        return dict(not_run=printed[-500:])
    backbone = Config.fromfile(CONFIG).model.backbone
    torch.manual_seed(0)
    vit = GatedPromptViT(arch=backbone.arch, img_size=96, patch_size=backbone.patch_size)
    torch.save({name: w + 0.05 * torch.randn_like(w) for name, w in vit.state_dict().items()}, out / 'vit.pth')
    steps, few, fixed = (6, 4, ['randomness.deterministic=True']) if setting.quick else (
        200, 30, ['randomness.deterministic=True'])
    found = dict(float32=train(setting, out, 'float32', steps, left),
                 bfloat16=train(setting, out, 'bfloat16', steps, left, '--amp', 'bf16'),
                 deterministic=train(setting, out, 'deterministic', few, left, options=fixed),
                 again=train(setting, out, 'again', few, left, options=fixed),
                 graphed=train(setting, out, 'graphed', few, left, '--cuda-graph', options=fixed))
    compared = dict(again='same_weights', **(dict(graphed='same_with_graph') if found['graphed']['recorded'] else {}))
    for name, key in compared.items():
        if not any('problem' in found[each] for each in ('deterministic', name)):
            found[key] = found[name]['losses'] == found['deterministic']['losses'] and same_weights(
                *(out / each / 'adapted.pth' for each in ('deterministic', name)))  # as the demo's config names it
    return found


def train(setting: Setting, out: Path, name: str, iterations: int, left: Callable[[], float], *arguments: str,
          options: list[str] | None = None) -> dict:
    """Trains the demo's model on the data in ``out``, and returns its losses, or the end of what it printed."""
    command = [
        sys.executable, str(TOOLS / 'train.py'), str(CONFIG), '--work-dir', str(out / name), '--overwrite', *arguments,
        '--device', 'cuda' if setting.on_gpu else 'auto', '--cfg-options', f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}', f'param_scheduler.0.end={iterations}',
        f'model.backbone.init_cfg.checkpoint={out}/vit.pth', 'default_hooks.logger.interval=5', 'randomness.seed=0',
        f'default_hooks.checkpoint.interval={iterations}', *(options or []),
        *(f'{loader}.dataset.data_root={out}/data' for loader in (
            'train_dataloader', 'val_dataloader', 'test_dataloader'))]
    status, printed = finished(command, left)
    logs = sorted((out / name).glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines()] if logs else []
    found = dict(losses={line['step']: round(line['loss'], 5) for line in lines if 'loss' in line},
                 recorded='is replayed as a CUDA graph' in printed,
                 seconds_an_iteration=next((line['time'] for line in reversed(lines) if 'loss' in line), None),
                 miou=next((line['mIoU'] for line in reversed(lines) if 'mIoU' in line), None))
    return found if not status else dict(found, problem=printed[-600:])


def same_weights(one: Path, other: Path) -> bool:
    """Returns whether two checkpoints hold the same weights, bit for bit."""
    weights, others = (read_file(path)['state_dict'] for path in (one, other))
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def finished(command: list[str], left: Callable[[], float]) -> tuple[int, str]:
    """Runs a command as long as there is time.

    Returns:
        tuple: Its exit status, 124 if its time was over, and what it printed.
    """
    paths = [str(CLONE), os.environ.get('PYTHONPATH', '')]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(left(), 1), env={
            **os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))})
    except subprocess.TimeoutExpired as error:
        return 124, f'its time was over. {(error.stdout or b"")[-300:]!r}'
    return done.returncode, done.stdout + done.stderr

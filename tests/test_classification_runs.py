"""Classification trains, validates, saves, resumes and is tested by the same runner as segmentation."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cls_folders
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_run import At, differing, next_name, run

pytest.importorskip('mmpretrain')

from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.checks.checkpoint import check_data
from mmseg_gpt.engine import Runner
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.recipes import follow_the_authors, hold_out_for_search, read_experiment

ARCH = dict(embed_dims=24, num_layers=12, num_heads=2, mlp_ratio=2)
SIZE, PATCH = 32, 8


def tiny(name: str, folder: Path, protocol=None, **options) -> Config:
    """An experiment in small, on images of its task that are drawn into ``folder`` if they are not there."""
    cfg = read_experiment(name)
    data = folder / 'data'
    if not data.exists():
        dict(CUB=cls_folders.make_cub, VTABTask=cls_folders.make_vtab)[cfg.test_dataloader.dataset.type](data)
        torch.manual_seed(0)
        torch.save(GatedPromptViT(ARCH, SIZE, PATCH, out_type='mean_all').state_dict(), folder / 'vit.pth')
    if protocol:
        protocol(cfg)
    shrink(cfg, data)
    cfg.merge_from_dict({
        'model.backbone.arch': ARCH, 'model.backbone.img_size': SIZE, 'model.backbone.patch_size': PATCH,
        'model.backbone.init_cfg.checkpoint': str(folder / 'vit.pth'), 'model.head.in_channels': 24,
        'work_dir': str(folder / 'run'), 'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': -1, 'log_level': 'WARNING', **options})
    return cfg


def shrink(node: dict, data: Path) -> None:
    """Makes images, batches and numbers of workers small everywhere in a config."""
    small = dict(data_root=str(data), num_workers=0, persistent_workers=False, crop_size=SIZE, batch_size=4)
    for key, value in node.items():
        if key in small:
            node[key] = small[key]
        elif key == 'scale':
            node[key] = SIZE + 4 if isinstance(value, int) else (SIZE, SIZE)
        elif key == 'split' and node['type'] == 'VTABTask':
            node['num_images'] = sum(1 for _ in (data / f'{value}.txt').open())
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                shrink(inner, data)


def accuracies(folder: Path) -> list[float]:
    """Those that a run in ``folder`` logged."""
    lines = [json.loads(line) for path in folder.glob('run/*/vis_data/scalars.json')
             for line in path.read_text().splitlines()]
    return [line['accuracy/top1'] for line in lines if 'accuracy/top1' in line]


@pytest.mark.parametrize('name', ['cls_gpt_mae_cub', 'cls_vpt-deep_mocov3_kitti_dist', 'cls_linear_mae_svhn'])
def test_a_run_trains_what_its_method_says(name, tmp_path):
    before = {}
    runner = run(tiny(name, tmp_path), At(1, lambda runner, _: before.update(
        {name: p.clone() for name, p in runner.model.named_parameters()})))
    moved = {name for name, p in runner.model.named_parameters() if not torch.equal(p, before[name])}
    trained = {name for name, p in runner.model.named_parameters() if p.requires_grad}
    assert moved == trained and {'head.fc.weight', 'head.fc.bias'} <= moved
    assert (tmp_path / 'run/epoch_3.pth').is_file()


def test_a_checkpoint_is_tested_and_knows_its_classes(tmp_path):
    run(tiny('cls_gpt_mae_kitti_dist', tmp_path))
    assert read_file(tmp_path / 'run/epoch_3.pth')['meta']['dataset_meta']['classes'] == ('0', '1', '2', '3')
    assert 0 <= evaluate(tiny('cls_gpt_mae_kitti_dist', tmp_path), tmp_path / 'run/epoch_3.pth')['accuracy/top1'] <= 100


def evaluate(cfg: Config, checkpoint: Path) -> dict:
    """What a run of ``cfg`` is measured at."""
    cfg.load_from, cfg.experiment_name = str(checkpoint), next_name()
    return Runner.from_cfg(cfg).test()


def test_a_checkpoint_is_not_evaluated_as_something_else(tmp_path):
    run(tiny('cls_gpt_mae_kitti_dist', tmp_path, **{'train_cfg.max_epochs': 1}))
    checkpoint = tmp_path / 'run/epoch_1.pth'
    for name, said in (('cls_gpt_mocov3_kitti_dist', 'out_type was mean_all and is cls_token'),
                       ('cls_hard-gates_mae_kitti_dist', 'prompt was GatedPrompt and is HardGatedPrompt')):
        with pytest.raises(CheckpointError, match=said):
            evaluate(tiny(name, tmp_path, **{'model.backbone.prompt.num_tokens': 5}), checkpoint)
    for option, said in (({'model.backbone.start_block': 3}, 'start_block was 0 and is 3'),
                         ({'model.backbone.arch.num_heads': 4}, 'num_heads was 2 and is 4')):
        with pytest.raises(CheckpointError, match=said):
            evaluate(tiny('cls_gpt_mae_kitti_dist', tmp_path, **option), checkpoint)
    with pytest.raises(CheckpointError, match='trained on the 200 validation images too'):
        evaluate(tiny('cls_gpt_mae_kitti_dist', tmp_path, hold_out_for_search), checkpoint)
    assert evaluate(tiny('cls_gpt_mae_kitti_dist', tmp_path, **{'model.backbone.with_cp': True}), checkpoint)


def test_another_task_of_as_many_classes_is_warned_of(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmseg_gpt.checks.checkpoint.print_log', lambda message, **_: said.append(message))
    checkpoint = dict(meta=dict(settings=json.dumps(read_experiment('cls_gpt_mae_dspr_loc').to_dict())))
    for task in ('dspr_loc', 'dspr_ori'):
        check_data(read_experiment(f'cls_gpt_mae_{task}'), checkpoint, 'x.pth')
    assert said == ['x.pth was trained on VTABTask in dsprites_loc, and is evaluated on VTABTask in dsprites_ori']


def test_a_run_stopped_inside_an_epoch_is_resumed_bit_by_bit(tmp_path):
    every_second = {'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 2}
    run(tiny('cls_gpt_mae_cub', tmp_path, **every_second))  # 3 iterations an epoch
    run(tiny('cls_gpt_mae_cub', tmp_path, **every_second, **dict(
        load_from=str(tmp_path / 'run/iter_4.pth'), resume=True, work_dir=str(tmp_path / 'again'))))
    assert differing(*(read_file(tmp_path / folder / 'iter_8.pth') for folder in ('run', 'again'))) == []


def test_the_authors_protocol_keeps_the_best_of_all_epochs_on_the_test_images(tmp_path):
    runner = run(tiny('cls_gpt_mae_kitti_dist', tmp_path, follow_the_authors))
    best, = tmp_path.glob('run/best_accuracy_top1_epoch_*.pth')
    measured = accuracies(tmp_path)
    assert len(measured) == 3 and f'epoch_{measured.index(max(measured)) + 1}.pth' in best.name
    assert runner.val_dataloader.dataset.dataset.ann_file.endswith('test.txt')


def test_a_search_trains_and_validates_on_training_images(tmp_path):
    runner = run(tiny('cls_gpt_mae_kitti_dist', tmp_path, hold_out_for_search, **{'train_cfg.val_interval': 3}))
    assert len(accuracies(tmp_path)) == 1
    assert runner.train_dataloader.dataset.dataset.ann_file.endswith('train800.txt')
    assert runner.val_dataloader.dataset.dataset.ann_file.endswith('val200.txt')


def test_a_test_shows_each_image_and_counts_which_class_is_taken_for_which(tmp_path):
    cfg = tiny('cls_gpt_mae_cub', tmp_path, **{'train_cfg.max_epochs': 1})
    run(cfg)
    cfg.dump(tmp_path / 'small.py')
    test = Path(__file__).parents[1] / 'tools/test.py'
    subprocess.run([sys.executable, test, 'small.py', 'run/epoch_1.pth', '--show-dir', 'shown', '--work-dir', 'tested'],
                   cwd=tmp_path, check=True, capture_output=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    images = [path for path, _ in cls_folders.make_cub(tmp_path / 'again')[cls_folders.TEST]]
    shown = {str(path.relative_to(tmp_path / 'shown')) for path in (tmp_path / 'shown').rglob('*.png')}
    assert shown == {path.removeprefix('images/').replace('.jpg', '.png') for path in images}
    picture = np.asarray(Image.open(tmp_path / 'shown' / sorted(shown)[0]))
    assert np.abs(picture[-20:].astype(int) - cls_folders.colour(sorted(images)[0])).max() < 8, 'red first'
    rows = list(csv.reader((tmp_path / 'tested/confusion.csv').open()))
    counts = np.array([row[1:] for row in rows[1:]], int)
    assert counts.shape == (200, 200) and counts.sum() == len(images) and (counts.sum(1)[:3] == 2).all()
    accuracy = json.loads((tmp_path / 'tested/metrics.json').read_text())['accuracy/top1']
    assert 100 * np.trace(counts) / counts.sum() == pytest.approx(accuracy, abs=0.01)

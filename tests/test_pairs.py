"""Settings that are valid alone: pairs that make no sense are refused before a run, and others do what they say."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from test_preflight import CONFIGS
from tiny import small_config, write_run

from mmseg_gpt import engine
from mmseg_gpt.checks import pairs, trials
from mmseg_gpt.checks.data import wrong_model
from mmseg_gpt.engine.config import find_config

EPOCHS = {'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=2, _delete_=True),
          'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
          'default_hooks.checkpoint.by_epoch': True, 'param_scheduler.0.by_epoch': True, 'param_scheduler.0.end': 2}
HEAD = 'model.decode_head.'
NINE = [1.] * 9

# What is changed in a run that is right, and words of what must be said; None where nothing may be said.
PAIRS = {
    'epochs': (EPOCHS, None),
    'epochs without end': ({**EPOCHS, 'train_dataloader.sampler.type': 'InfiniteSampler'}, 'first epoch would never'),
    'by_epoch without end': ({**EPOCHS, 'train_dataloader.sampler.type': 'InfiniteSampler', 'train_cfg': dict(
        by_epoch=True, max_epochs=2, _delete_=True)}, 'first epoch would never'),
    'validation without end': ({'val_dataloader.sampler.type': 'InfiniteSampler'}, 'val_dataloader.sampler'),
    'epochs of iterations': ({'train_cfg.max_epochs': 3}, 'max_epochs, as EpochBasedTrainLoop has'),
    'iterations of epochs': ({**EPOCHS, 'train_cfg.max_iters': 3}, 'max_iters, as IterBasedTrainLoop has'),
    'loop of two kinds': ({'train_cfg.by_epoch': False}, 'both type and by_epoch'),
    'late validation': ({'train_cfg.val_begin': 5}, 'val_begin is 5, but training ends at 1'),
    'rare validation': ({'train_cfg.val_interval': 100}, None),  # it is validated at the end
    'schedule in epochs': ({'param_scheduler.0.by_epoch': True}, 'param_scheduler.0 (PolyLR) counts epochs'),
    'schedule converted': ({'param_scheduler.0.by_epoch': True, 'param_scheduler.0.convert_to_iter_based': True}, None),
    'checkpoints in epochs': ({'default_hooks.checkpoint.by_epoch': True}, 'checkpoint.interval is 1000000 epochs'),
    'schedule with wrong options': ({'param_scheduler.0.T_max': 3}, 'param_scheduler.0 (PolyLR) cannot be built'),
    'schedule that ends first': ({'param_scheduler.0.begin': 9}, 'param_scheduler.0 (PolyLR) cannot be built'),
    'optimizer with wrong options': ({'optim_wrapper.optimizer.momentum': 0.9}, 'momentum'),
    'decay_mult without decay': ({'optim_wrapper.optimizer': dict(type='SGD', lr=0.1, _delete_=True)}, 'base_wd'),
    'best of a slip': ({'default_hooks.checkpoint.save_best': 'mIou'}, 'measures aAcc, mAcc, mIoU'),
    'best': ({'default_hooks.checkpoint.save_best': 'mIoU'}, None),
    'any best': ({'default_hooks.checkpoint.save_best': 'auto'}, None),
    'best with a prefix': ({'default_hooks.checkpoint.save_best': 'mIoU', 'val_evaluator.prefix': 'a'}, 'a/mIoU'),
    'best without rule': ({'default_hooks.checkpoint.save_best': 'mFscore', 'val_evaluator.iou_metrics': ['mFscore']},
                          'Cannot infer the rule'),
    'best without validation': ({'default_hooks.checkpoint.save_best': 'mIoU', 'val_dataloader': None, 'val_cfg': None,
                                 'val_evaluator': None}, 'no val_dataloader'),
    'stop at a slip': ({'custom_hooks': [dict(type='EarlyStoppingHook', monitor='miou')]}, 'custom_hooks.0.monitor'),
    'validation without evaluator': ({'val_evaluator': None}, 'val_evaluator is not'),
    'averages without ViT': ({'default_hooks.checkpoint.adapter_only': True, 'custom_hooks': [dict(type='EMAHook')]},
                             'EMAHook'),
    'adapters of a trained ViT': ({'default_hooks.checkpoint.adapter_only': True, 'model.backbone.frozen': False,
                                   'model.backbone.prompt': None}, 'frozen=False'),
    'adapters of no ViT': ({'default_hooks.checkpoint.adapter_only': True, 'model.backbone.init_cfg': None},
                           'without a pretrained file'),
    'adapters': ({'default_hooks.checkpoint.adapter_only': True}, None),
    'another runner': ({'runner_type': 'FlexibleRunner'}, 'runner_type FlexibleRunner would be ignored'),
    'FSDP strategy': ({'strategy': dict(type='FSDPStrategy')}, 'strategy FSDPStrategy would be ignored'),
    'DeepSpeed': ({'strategy': dict(type='DeepSpeedStrategy'), 'runner_type': 'FlexibleRunner'}, 'DeepSpeedStrategy'),
    'FSDP wrapper': ({'model_wrapper_cfg': dict(type='MMFullyShardedDataParallel')}, 'MMFullyShardedDataParallel'),
    'DDP wrapper': ({'model_wrapper_cfg': dict(type='MMDistributedDataParallel', static_graph=True)}, None),
    'scaling from nothing': ({'auto_scale_lr': dict(enable=True)}, 'base_batch_size'),
    'weights of classes': ({HEAD + 'loss_decode': dict(type='CrossEntropyLoss', class_weight=NINE)}, None),
    'weights of fewer': ({HEAD + 'loss_decode': dict(type='CrossEntropyLoss', class_weight=NINE[1:])},
                         'has 8 numbers in class_weight, but num_classes of the head is 9'),
    'focal loss': ({HEAD + 'loss_decode': [dict(type='FocalLoss', class_weight=NINE)]}, None),
    'focal loss of fewer': ({HEAD + 'loss_decode': [dict(type='FocalLoss', alpha=[0.5, 0.5])]}, '2 numbers in alpha'),
    'loss that is not built': ({HEAD + 'loss_decode': dict(type='LovaszLoss')}, "reduction should be 'none'"),
    'loss of another head': ({HEAD + 'loss_decode': dict(type='OhemCrossEntropy')}, 'decode_head.loss_decode'),
    'softmax of one channel': ({HEAD + 'out_channels': 1, HEAD + 'num_classes': 2, HEAD + 'threshold': 0.5},
                               'decode_head.loss_decode'),
    'padding that counts': ({'model.data_preprocessor.seg_pad_val': 0}, 'seg_pad_val is 0, but'),
    'batches of nothing': ({'train_dataloader.drop_last': True, 'train_dataloader.batch_size': 8}, 'leaves no batch'),
    'shuffle and sampler': ({'train_dataloader.shuffle': True}, 'mutually exclusive'),
    'prefetch without workers': ({'train_dataloader.prefetch_factor': 2}, 'prefetch_factor'),
    'crops of no size': ({'model.data_preprocessor.size': None}, 'train_dataloader: '),
    'training without labels': ({'train_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackSegInputs')]},
        'train_dataloader: its samples have no label maps'),
    'validation without labels': ({'val_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]}, 'val_dataloader: its samples have no label maps'),
}


def changed(cfg: Config, options: dict) -> Config:
    """Returns a config with other settings; a dict with ``_delete_`` and a list take the place of what is there."""
    for key, value in copy.deepcopy(options).items():
        *path, name = key.split('.')
        here = cfg
        for step in path:
            here = here[int(step) if step.isdigit() else step]
        if isinstance(value, dict) and not value.pop('_delete_', False) and isinstance(here.get(name), dict):
            here[name] = dict(here[name], **value) if value.get('type') == here[name].get('type') else value
        else:
            here[name] = value
    return cfg


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp('pairs'))


def check(cfg: Config) -> str:
    """Returns what is said of a config before it is trained, '' if it is right."""
    loaders = tuple(name for name in ('train_dataloader', 'val_dataloader') if cfg.get(name))
    try:
        engine.check_files(cfg, loaders, pretrained=True)
    except SystemExit as error:
        return str(error)
    return ''


@pytest.mark.parametrize('name', PAIRS)
def test_pair(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    options, words = PAIRS[name]
    files = set(folder.rglob('*'))
    said = check(changed(small_config(), options))
    assert set(folder.rglob('*')) == files, 'something was written'
    assert said == '' if words is None else words in said, said
    assert len([line for line in said.splitlines() if line.startswith('  * ')]) <= 3, said


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_no_config_of_ours_raises_a_false_alarm(config):
    cfg = find_config(str(config))
    loaders = tuple(name for name in pairs.PARTS if cfg.get(name))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        assert pairs.missing_parts(cfg, loaders) + pairs.senseless_pairs(cfg, loaders) == []
        assert wrong_model(cfg) + trials.wrong_optimizer(cfg) == []

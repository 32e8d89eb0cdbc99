"""Settings that are valid alone: pairs that make no sense are refused before a run, and others do what they say."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from PIL import Image
from test_preflight import CONFIGS
from tiny import image_path, label_path, small_config, write_run
from tiny_run import run, tiny_config

from mmseg_gpt import engine
from mmseg_gpt.checks import pairs, trials
from mmseg_gpt.checks.data import wrong_model
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.engine.loaders import training_loader

EPOCHS = {'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=2, _delete_=True),
          'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
          'default_hooks.checkpoint.by_epoch': True, 'param_scheduler.0.by_epoch': True, 'param_scheduler.0.end': 2}
HEAD = 'model.decode_head.'
NINE = [1.] * 9
PSP = dict(type='PSPHead', in_channels=8, in_index=2, channels=4, pool_scales=(1, 2), num_classes=9,
           norm_cfg=dict(type='BN'), align_corners=False, _delete_=True)

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
    'averages after the end': ({'custom_hooks': [dict(type='EMAHook', begin_iter=100)]}, 'averages would never begin'),
    'averages by epoch': ({'custom_hooks': [dict(type='EMAHook', begin_epoch=2)]}, 'train_cfg does not count epochs'),
    'averages': ({'custom_hooks': [dict(type='EMAHook', begin_iter=1)]}, None),
    'nothing saved': ({'default_hooks.checkpoint.save_last': False}, 'nothing would be saved'),
    'gradients of length 0': ({'optim_wrapper.clip_grad': dict(max_norm=0)}, 'nothing would be learnt'),
    'a pooled pixel': ({'train_dataloader.batch_size': 1, 'model.decode_head': dict(PSP)}, 'gives each process one'),
    'a pooled pixel of UPerNet': ({'train_dataloader.batch_size': 1, 'model.decode_head': dict(
        PSP, type='LeanUPerHead', in_channels=[8] * 3, in_index=[0, 1, 2])}, 'gives each process one'),
    'pooled pixels': ({'model.decode_head': dict(PSP)}, None),
    'a pooled pixel at the end': ({**EPOCHS, 'train_dataloader.dataset': dict(
        type='RepeatDataset', times=3, dataset=dict(small_config().train_dataloader.dataset), _delete_=True),
        'train_dataloader.batch_size': 5, 'model.decode_head': dict(PSP)}, 'epoch of 6 has one image'),
    'one image for a batch norm': ({'train_dataloader.batch_size': 1, 'model.neck': dict(
        type='mmpretrain.ClsBatchNormNeck', input_features=8)}, 'batch norm of ClsBatchNormNeck'),
    'logits that are not kept': ({'model': dict(type='SegTTAModel', module=small_config().model, _delete_=True)},
                                 'use tta_model.type=LeanSegTTAModel'),
    'windows beyond the image': ({'model.test_cfg': dict(mode='slide', crop_size=(320, 320), stride=(200, 200),
                                                         _delete_=True)}, None),
    'accumulation by epoch': ({**EPOCHS, 'optim_wrapper.accumulative_counts': 3}, None),
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
    'crops larger than the model': ({'model.data_preprocessor.size': (16, 16)}, 'but the model is made for (16, 16)'),
    'crops far smaller': ({'model.data_preprocessor.size': (96, 96)}, 'crop_size is (32, 32), but the model is made'),
    'crops padded a little': ({'model.data_preprocessor.size': (48, 48)}, None),
    'misspelt head': ({HEAD + 'type': 'LeanSETRUPHaed'}, 'decode_head.type: "LeanSETRUPHaed" is not registered; is '
                      '"LeanSETRUPHead" meant?'),
    'head of no module': ({HEAD + 'type': 'ToyHead'}, '"ToyHead" is not registered: is the module that registers it'),
    'misspelt model': ({'model.type': 'LeanEncoderDecodr'}, 'model.type: "LeanEncoderDecodr" is not registered'),
    'misspelt preprocessor': ({'model.data_preprocessor.type': 'SegDataPreProcesor'}, '"SegDataPreProcessor" meant?'),
    'misspelt hook': ({'custom_hooks': [dict(type='NonFinitHook')]}, 'custom_hooks.0.type: "NonFinitHook"'),
    'misspelt metric': ({'val_evaluator.type': 'IoUMetrik'}, 'val_evaluator.type: "IoUMetrik" is not registered'),
    'batches of nothing': ({'train_dataloader.drop_last': True, 'train_dataloader.batch_size': 8}, 'leaves no batch'),
    'shuffle and sampler': ({'train_dataloader.shuffle': True}, 'mutually exclusive'),
    'prefetch without workers': ({'train_dataloader.prefetch_factor': 2}, 'prefetch_factor'),
    'crops of no size': ({'model.data_preprocessor.size': None}, 'train_dataloader: '),
    'training without labels': ({'train_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackSegInputs')]},
        'train_dataloader: its samples have no label maps'),
    'validation without labels': ({'val_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]}, 'val_dataloader: its samples have no label maps'),
    'predicting in a validation': ({'val_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]}, "dict(type='IoUMetric', format_only=True"),
    'views without labels': ({'val_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile'), dict(
        type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=1.)], [dict(type='PackSegInputs')]])]},
        'add LoadAnnotations to the pipeline'),
    'labels nowhere': ({'val_dataloader.dataset.data_prefix': dict(img_path='images/validation', _delete_=True)},
                       'Name the folder of the label maps in data_prefix.seg_map_path'),
    'distorted floats': ({'train_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile', to_float32=True), dict(type='LoadAnnotations'),
        dict(type='RandomCrop', crop_size=(32, 32)), dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]},
        'PhotoMetricDistortion would destroy the colours'),
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


@pytest.mark.slow
@pytest.mark.parametrize('package', ['mmseg', 'mmpretrain'])
def test_configs_of_openmmlab_raise_no_false_alarm(package):
    root = Path(pytest.importorskip(package).__file__).parent / '.mim/configs'
    pytest.importorskip(f'{package}.models')
    import mmseg_gpt.segmentation  # noqa: F401  which mends class_weight
    read, odd = 0, {}
    for path in sorted(root.rglob('*.py'))[::8]:
        if '_base_' in path.parts:
            continue
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception:  # some name files that are not in the package
            continue
        read += 1
        loaders = tuple(name for name in pairs.PARTS if isinstance(cfg.get(name), dict))
        with DefaultScope.overwrite_default_scope(package):
            said = pairs.senseless_pairs(cfg, loaders) + wrong_model(cfg)
        # MMEngine refuses these train_cfg too: half of one, of a config for tests only, and one of two kinds.
        if unexpected := [words for words in said if not words.startswith(('train_cfg needs', 'train_cfg has both'))]:
            odd[path.stem] = unexpected
    assert odd == {}
    assert read > 20 or not root.is_dir()


# --- images of different sizes -----------------------------------------------------------------------------


@pytest.fixture
def sizes(tmp_path, monkeypatch) -> Path:
    """A run in the current folder whose second validation image is larger than the first."""
    monkeypatch.chdir(write_run(tmp_path))
    for path in (image_path, label_path):
        file = path(tmp_path / 'data', 'validation', 1)
        with Image.open(file) as image:
            image.resize((61, 53), Image.Resampling.NEAREST).save(file)
    return tmp_path


def scores(cfg: Config) -> dict:
    cfg = cfg.copy()
    cfg.work_dir, cfg.experiment_name = 'tested', f'sizes-{cfg.val_dataloader.batch_size}-{cfg.model.type}'
    return engine.Runner.from_cfg(cfg).val()


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_a_batch_of_different_sizes_is_validated_like_its_images(mode, sizes):
    cfg = small_config()
    cfg.model.test_cfg = dict(mode=mode, crop_size=(32, 32), stride=(20, 20))
    assert check(cfg) == ''
    several = scores(cfg)
    cfg.val_dataloader.batch_size = 1
    assert several == scores(cfg)


def test_a_segmentor_that_cannot_take_them_is_refused(sizes):
    cfg = small_config()
    cfg.model.type = 'EncoderDecoder'
    assert 'different sizes, 37x45 and 53x61' in check(cfg) and 'val_dataloader.batch_size=1' in check(cfg)
    cfg.val_dataloader.batch_size = 1
    assert check(cfg) == ''


def test_training_images_of_different_sizes_are_refused(sizes):
    cfg = small_config()
    cfg.train_dataloader.dataset.data_prefix = cfg.val_dataloader.dataset.data_prefix
    del cfg.train_dataloader.dataset.pipeline[2:4]  # resize and crop
    assert 'Add a RandomCrop' in check(cfg)


# --- losses ------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 4, 5) and labels, with all labels and ignored pixels among them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, 4, 5), generator=generator)
    labels[:, 0, :2] = 255
    return torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.double), labels


WEIGHTS = [0.5, 1., 3.]


def loss_of(pixels, **options) -> torch.Tensor:
    return MODELS.build(options)(pixels[0], pixels[1], weight=None, ignore_index=255)


def test_class_weights_give_pytorchs_weighted_mean(pixels):
    loss = loss_of(pixels, type='CrossEntropyLoss', class_weight=WEIGHTS, avg_non_ignore=True)
    torch.testing.assert_close(loss, F.cross_entropy(*pixels, torch.tensor(WEIGHTS).double(), ignore_index=255))


def test_ignored_pixels_count_one_where_they_count(pixels):
    loss = loss_of(pixels, type='CrossEntropyLoss', class_weight=WEIGHTS)
    total = count = 0.
    for scores_, label in zip(pixels[0].movedim(1, -1).reshape(-1, 3), pixels[1].flatten().tolist()):
        if label == 255:
            count += 1
        else:
            total += WEIGHTS[label] * (scores_.logsumexp(0) - scores_[label])
            count += WEIGHTS[label]
    torch.testing.assert_close(loss, total / count)
    ones = loss_of(pixels, type='CrossEntropyLoss', class_weight=[1., 1., 1.])
    torch.testing.assert_close(ones, loss_of(pixels, type='CrossEntropyLoss'))


def test_class_weights_of_sigmoids_are_along_the_classes(pixels):
    loss = loss_of(pixels, type='CrossEntropyLoss', class_weight=WEIGHTS, use_sigmoid=True, avg_non_ignore=True)
    total = count = 0.
    for scores_, label in zip(pixels[0].movedim(1, -1).reshape(-1, 3), pixels[1].flatten().tolist()):
        for k in range(3 if label != 255 else 0):
            total += -WEIGHTS[k] * F.logsigmoid(scores_[k]) if k == label else -F.logsigmoid(-scores_[k])
            count += 1
    torch.testing.assert_close(loss, total / count, check_dtype=False, rtol=1e-6, atol=0.)


@pytest.mark.parametrize('weights', [None, WEIGHTS])
@pytest.mark.parametrize('alpha', [0.25, [0.2, 0.5, 0.9]])
def test_focal_loss_is_that_of_its_paper(weights, alpha, pixels):
    loss = loss_of(pixels, type='FocalLoss', gamma=2., alpha=alpha, class_weight=weights)
    each = loss_of(pixels, type='FocalLoss', gamma=2., alpha=alpha, class_weight=weights, reduction='none')
    expected = torch.zeros_like(pixels[0])
    for b, k, i, j in torch.cartesian_prod(*map(torch.arange, expected.shape)).tolist():
        if (label := pixels[1][b, i, j]) == 255:
            continue
        a = alpha if isinstance(alpha, float) else alpha[k]
        p = pixels[0][b, k, i, j].sigmoid()
        p, a = (p, a) if label == k else (1 - p, 1 - a)
        expected[b, k, i, j] = -a * (1 - p)**2 * p.log() * (weights[k] if weights else 1)
    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(loss, expected.mean())


def test_a_run_with_class_weights_and_focal_loss_trains(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    cfg = small_config()
    cfg.model.decode_head.loss_decode = [dict(type='CrossEntropyLoss', class_weight=NINE),
                                         dict(type='FocalLoss', class_weight=NINE)]
    cfg.work_dir = str(tmp_path)
    assert check(cfg) == ''
    losses = run(cfg).message_hub.log_scalars
    assert {'train/decode.loss_ce', 'train/decode.loss_focal'} <= losses.keys()


# --- learning rates ----------------------------------------------------------------------------------------


def test_learning_rates_are_scaled_by_the_batch_of_all_processes(tmp_path):
    cfg = tiny_config(tmp_path, train_cfg__max_iters=1)
    rates = rates_of(run(cfg))
    with pytest.raises(SystemExit, match='base_batch_size=N'):
        engine.set_scaling(cfg)
    cfg.auto_scale_lr = dict(base_batch_size=8)
    engine.set_scaling(cfg)
    assert rates_of(run(cfg)) == {rate / 4 for rate in rates}  # its batch is 2
    # Two processes have one image each, which MMEngine multiplies by 2.
    assert training_loader(cfg.train_dataloader, 0, processes=2).batch_size * 2 == cfg.train_dataloader.batch_size


def rates_of(runner: engine.Runner) -> set[float]:
    """Returns the learning rates that a run began with; OptimWrapper.param_groups has one more, for the log."""
    return {group['initial_lr'] for group in runner.optim_wrapper.optimizer.param_groups}

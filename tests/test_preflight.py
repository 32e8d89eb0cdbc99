"""Checks before a run: what is missing, keys, numbers, the machine, room on the disk; and no false alarm."""

import os
import subprocess
import sys
from collections import namedtuple
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mmengine.runner
import pytest
import torch
from mmengine.config import Config, ConfigDict
from tiny import ROOT, TinySegmentor, image_path, label_path, small_config, write_data

import mmseg_gpt.engine as engine
from mmseg_gpt.checks import before, data, keys, machine, values
from mmseg_gpt.engine.config import find_config

MAIN = ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'
CONFIGS = sorted((ROOT / 'configs').glob('*.py')) + sorted((ROOT / 'configs/demo').glob('*.py'))
# Top-level names of OpenMMLab configs that are variables, or that only other tools read.
COMMON_NAMES = (
    'train_pipeline', 'val_pipeline', 'test_pipeline', 'tta_pipeline', 'tta_model', 'img_ratios', 'crop_size',
    'norm_cfg', 'dataset_type', 'data_root', 'albu_train_transforms', 'num_classes', 'max_epochs', 'max_iters',
    'optimizer', 'data', 'models', 'runner', 'vis_backends', 'backbone_norm_cfg', 'custom_keys', 'train_dataset',
    'val_dataset', 'test_dataset', 'dataset_train', 'checkpoint_file', 'checkpoint', 'pretrained', 'metainfo',
    'batch_size', 'lr', 'view_pipeline', 'class_weight', 'fp16', 'find_unused_parameters', 'temperature',
    'paramwise_cfg', 'backend_args', 'img_scale', 'image_size', 'seed', 'work_dirs_root', 'strategy', 'runner_type',
    'evaluator', 'base_lr')


@pytest.fixture
def cfg(tmp_path, monkeypatch) -> Config:
    """The config of a tiny run, and its dataset in the current folder."""
    write_data(tmp_path / 'data')
    (tmp_path / 'vit.pth').touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    config = small_config()
    config.work_dir = 'work_dirs/small'
    return config


def check(config: Config, **options) -> None:
    engine.check_files(config, ('train_dataloader', 'val_dataloader'), pretrained=True, **options)


def test_nothing_wrong_passes_and_nothing_is_written(cfg, tmp_path):
    files = set(tmp_path.rglob('*'))
    check(cfg)
    assert set(tmp_path.rglob('*')) == files


# --- what is missing -------------------------------------------------------------------------------


def test_missing_data_and_checkpoint_are_said_in_one_screen(tmp_path):
    done = subprocess.run([sys.executable, ROOT / 'tools/train.py', MAIN], cwd=tmp_path, capture_output=True, text=True)
    said = done.stderr
    assert done.returncode != 0 and 'Traceback' not in said and 'Warning' not in said
    for words in ('images/training', 'annotations/validation', 'ADEChallengeData2016.zip', 'unzip', str(tmp_path),
                  'mae_pretrain_vit_base.pth', 'https://', 'pretrained', 'Nothing was started'):
        assert words in said
    assert len(said.splitlines()) < 24
    assert not list(tmp_path.iterdir()), 'something was written before the check'


@pytest.mark.parametrize('dataset', [
    dict(type='CustomDataset', data_root='/absent', data_prefix='train'),  # mmpretrain's short form
    dict(type='CustomDataset', data_root=None, data_prefix='/absent/train'),
    dict(type='ConcatDataset', datasets=[dict(type='CustomDataset', data_root='/absent', data_prefix='train')]),
    dict(type='RepeatDataset', times=2, dataset=dict(type='CustomDataset', data_prefix=dict(img_path='/absent/train'))),
])
def test_other_dataset_configs(dataset):
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(SystemExit, match=r'CustomDataset.*no files in .*train'):
        engine.check_files(config, ('train_dataloader', ), pretrained=False)


@pytest.mark.parametrize('variable', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_of_many_processes_one_says_what_is_missing(variable, monkeypatch):
    config = Config(dict(model=dict(backbone=dict(init_cfg=dict(type='PretrainedViT', checkpoint='absent.pth')))))
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, '1')
    with pytest.raises(SystemExit) as stopped:
        engine.check_files(config, (), pretrained=True)
    assert stopped.value.code == 1
    monkeypatch.setenv(variable, '0')
    with pytest.raises(SystemExit, match='absent'):
        engine.check_files(config, (), pretrained=True)


def test_more_problems_than_a_screen_holds_are_counted():
    with pytest.raises(SystemExit) as stopped:
        before.refuse([], [f'problem {i}' for i in range(40)])
    assert 'problem 15\n' in str(stopped.value) and 'and 24 more' in str(stopped.value)


# --- datasets --------------------------------------------------------------------------------------


def test_a_sample_from_all_over_the_dataset_is_looked_at_in_limited_time(cfg, tmp_path, monkeypatch):
    for i in range(2, 200):
        for path in (image_path, label_path):
            path(tmp_path / 'data', 'training', i).symlink_to(path(tmp_path / 'data', 'training', 0))
    looked_at = []
    inspect = data.inspect_pair
    monkeypatch.setattr(data, 'time', SimpleNamespace(monotonic=lambda: 0.))
    monkeypatch.setattr(data, 'inspect_pair', lambda image, *rest: looked_at.append(image) or inspect(image, *rest))
    assert data.wrong_data(cfg, ('train_dataloader', )) == []
    numbers = [int(Path(image).stem) for image in looked_at]
    assert len(numbers) == data.PAIRS and numbers[0] == 0 and numbers[-1] == 199
    assert all(5 < b - a < 8 for a, b in pairwise(numbers))

    looked_at.clear()
    monkeypatch.setattr(data, 'time', SimpleNamespace(monotonic=lambda: 2. * len(looked_at)))  # 2 s for each
    data.wrong_data(cfg, ('train_dataloader', ))
    assert len(looked_at) == 3


def test_wrapped_datasets_are_looked_into(cfg, tmp_path):
    plain = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=dict(
        type='ConcatDataset', datasets=[plain, plain]))
    check(cfg)
    label_path(tmp_path / 'data', 'training', 1).write_bytes(b'')
    with pytest.raises(SystemExit, match=r'00001\.png is empty'):
        check(cfg)


def classification(folder: Path, lines: str, num_classes: int, **dataset) -> Config:
    (folder / 'list.txt').write_text(lines)
    dataset = dict(type='CustomDataset', data_root='data', data_prefix='images/training', ann_file='../list.txt',
                   pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]) | dataset
    return Config(dict(default_scope='mmpretrain', model=dict(head=dict(type='LinearClsHead', num_classes=num_classes)),
                       train_dataloader=dict(dataset=dataset)))


@pytest.mark.parametrize('num_classes, names, words', [
    (3, None, None), (4, None, None), (2, None, 'class number 2'), (3, 'abc', None), (3, 'abcd', 'has 4 classes'),
    (5, 'abc', 'model.head.num_classes is 5'),
])
def test_classes_of_a_classification_head(num_classes, names, words, cfg, tmp_path):
    pytest.importorskip('mmpretrain')
    import mmpretrain.datasets  # noqa: F401
    config = classification(tmp_path, '00000.jpg 0\n00001.jpg 2\n', num_classes,
                            metainfo=dict(classes=list(names)) if names else None)
    if words is None:
        engine.check_files(config, ('train_dataloader', ), pretrained=False)
    else:
        with pytest.raises(SystemExit, match=words):
            engine.check_files(config, ('train_dataloader', ), pretrained=False)


def test_classes_of_joined_classification_datasets(cfg, tmp_path):
    pytest.importorskip('mmpretrain')
    import mmpretrain.datasets  # noqa: F401
    config = classification(tmp_path, '00001.jpg 2\n', 2)
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[config.train_dataloader.dataset] * 2)
    with pytest.raises(SystemExit, match='class number 2'):
        engine.check_files(config, ('train_dataloader', ), pretrained=False)


def test_heads_inside_a_test_time_wrapper_and_of_other_tasks():
    head = dict(type='FCNHead', num_classes=3)
    inside = dict(type='SegTTAModel', module=dict(decode_head=head, auxiliary_head=[head, dict(
        type='STDCHead', num_classes=2, boundary_threshold=0.1)], backbone=dict(num_classes=7)))
    assert [path for path, _ in data.heads(ConfigDict(inside), 'model')] == [
        'model.module.decode_head', 'model.module.auxiliary_head.0']


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_no_config_of_ours_raises_a_false_alarm(config):
    cfg = find_config(str(config))
    assert keys.misspelt_keys(cfg) == []
    assert values.wrong_numbers(cfg, tuple(n for n in ('train_dataloader', 'val_dataloader') if n in cfg)) == []
    assert values.odd_schedule(cfg) == []


def test_common_variables_of_configs_are_no_slips():
    assert keys.misspelt_keys(Config(dict.fromkeys(COMMON_NAMES, 1))) == []
    assert keys.misspelt_keys(Config({name: None for name in keys.RENAMED})) == []


@pytest.mark.slow
@pytest.mark.parametrize('package', ['mmseg', 'mmpretrain'])
def test_configs_of_openmmlab_raise_no_false_alarm(package):
    root = Path(pytest.importorskip(package).__file__).parent / '.mim/configs'
    read = 0
    for path in sorted(root.rglob('*.py'))[::4]:
        if '_base_' in path.parts:
            continue
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception:  # some name files that are not in the package
            continue
        read += 1
        loaders = tuple(name for name in ('train_dataloader', 'val_dataloader') if isinstance(cfg.get(name), dict))
        assert keys.misspelt_keys(cfg) == [] and values.wrong_numbers(cfg, loaders) == [], path
    assert read > 50 or not root.is_dir()


@pytest.mark.parametrize('slip, meant', [
    ('param_schedulers', 'param_scheduler'), ('randomnes', 'randomness'), ('optim_wraper', 'optim_wrapper'),
    ('optimwrapper', 'optim_wrapper'), ('custom_hook', 'custom_hooks'), ('default_hook', 'default_hooks'),
    ('train_dataloaders', 'train_dataloader'), ('val_evaluators', 'val_evaluator'), ('log_procesor', 'log_processor'),
    ('loadfrom', 'load_from'), ('train_cgf', 'train_cfg'), ('custom_import', 'custom_imports'), ('resumes', 'resume'),
])
def test_slips_of_top_level_keys_are_refused_with_the_right_one(slip, meant):
    problem, = keys.misspelt_keys(Config({slip: 1}))
    assert f'"{slip}"' in problem and f'is "{meant}" meant' in problem


@pytest.mark.parametrize('option', [
    'train_cfg.max_iters', 'load_from', 'experiment_name', 'resume', 'compile', 'model.backbone.start_block',
    'model.backbone.init_cfg.checkpoint', 'param_scheduler.0.end', 'optim_wrapper.clip_grad.max_norm',
    'default_hooks.checkpoint.save_best', 'train_dataloader.dataset.ann_file', 'model.decode_head.out_channels',
    'optim_wrapper.optimizer.nesterov', 'optim_wrapper.accumulative_counts', 'auto_scale_lr.enable', 'val_cfg.fp16',
    'model.auxiliary_head.1.loss_decode.loss_weight', 'model_wrapper_cfg.type', 'train_dataloader.pin_memory',
    'train_dataloader.dataset.pipeline.3.cat_max_ratio', 'env_cfg.resource_limit', 'work_dir',
    'randomness.deterministic',
])
def test_options_that_are_there_or_may_be_added_pass(option):
    engine.check_options(find_config(str(MAIN)), {option: 1})


def test_all_wrong_options_are_said_at_once():
    options = {'train_cfg.max_iter': 1, 'train_cfg.val_interval': 1, 'model.bakbone.frozen': 1,
               'param_scheduler.4.end': 1, 'data_root': 'x', 'model.decode_head.num_classe': 1, 'log_level.x': 1}
    with pytest.raises(SystemExit) as stopped:
        engine.check_options(find_config(str(MAIN)), options)
    lines = [line for line in str(stopped.value).splitlines() if line.startswith('  * ')]
    assert len(lines) == 6 and not any('val_interval' in line for line in lines)
    for words in ('"max_iters"', '"backbone"', 'a list of 1', '"num_classes"', "'INFO'", 'nothing reads'):
        assert words in str(stopped.value)


# --- the machine -----------------------------------------------------------------------------------

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')


@no_gpu
@pytest.mark.parametrize('value, wrong', [(None, False), ('', False), ('-1', False), ('0', True), ('1,2', True)])
def test_a_gpu_that_is_named_must_be_seen(value, wrong, cfg, monkeypatch):
    if value is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', value)
    if not wrong:
        check(cfg)
    else:
        with pytest.raises(SystemExit, match=f'CUDA_VISIBLE_DEVICES={value} asks for a GPU'):
            check(cfg)


@no_gpu
def test_cuda_asked_for_says_why_there_is_none(cfg, monkeypatch):
    monkeypatch.setattr(torch.version, 'cuda', None)
    with pytest.raises(SystemExit, match=r'--device cuda asks for a GPU.*build for CPUs only'):
        check(cfg, device='cuda')
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    with pytest.raises(SystemExit, match='nvidia-smi'):
        check(cfg, device='cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    check(cfg, device='cuda')


@no_gpu
@pytest.mark.parametrize('driver, hidden, warned', [(True, None, True), (True, '', False), (False, None, False)])
def test_a_gpu_that_stays_unused_is_warned_of(driver, hidden, warned, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'NVIDIA_DRIVER', tmp_path if driver else tmp_path / 'absent')
    monkeypatch.setattr(machine.shutil, 'which', lambda name: None)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if hidden is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    assert [('NVIDIA driver' in w and 'on the CPU' in w) for w in machine.unused_gpu()] == [True] * warned


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may write everywhere')
def test_a_work_dir_that_is_not_ours_is_refused(cfg, tmp_path):
    (tmp_path / 'locked').mkdir(mode=0o500)
    cfg.work_dir = 'locked/run'
    with pytest.raises(SystemExit, match='locked cannot be written'):
        check(cfg)


# --- the built model -------------------------------------------------------------------------------


def test_paramwise_key_that_matches_nothing_is_refused():
    cfg = Config(dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)}))))
    before.refuse([], values.wrong_paramwise(cfg, TinySegmentor()))
    cfg.optim_wrapper.paramwise_cfg.custom_keys = {'blocks': dict(lr_mult=.1)}  # there, but frozen
    with pytest.raises(SystemExit, match='"blocks"'):
        before.refuse([], values.wrong_paramwise(cfg, TinySegmentor()))


@pytest.mark.parametrize('optimizer, states', [
    (dict(type='SGD', lr=.1), 0), (dict(type='SGD', lr=.1, momentum=.9), 1), (dict(type='AdamW', lr=.1), 2),
    (dict(type='AdamW', lr=.1, amsgrad=True), 3), (dict(type='RMSprop', lr=.1), 1), (dict(type='Adagrad', lr=.1), 1)])
def test_the_size_of_a_checkpoint_is_that_of_a_saved_one(optimizer, states, tmp_path):
    net = TinySegmentor()
    trained = [p for p in net.parameters() if p.requires_grad]
    cfg = Config(dict(optim_wrapper=dict(optimizer=optimizer)))
    assert machine.states_per_parameter(cfg.optim_wrapper.optimizer) == states
    built = getattr(torch.optim, optimizer['type'])(trained, **{k: v for k, v in optimizer.items() if k != 'type'})
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    tensors = [*net.state_dict().values(), *(t for s in built.state_dict()['state'].values() for t in s.values())]
    assert machine.checkpoint_size(cfg, net) == sum(t.nbytes for t in tensors if t.ndim or t.numel() > 1)
    cfg.default_hooks = dict(checkpoint=dict(save_optimizer=False))
    assert machine.checkpoint_size(cfg, net) == sum(t.nbytes for t in net.state_dict().values())


@pytest.mark.parametrize('hook, train, kept', [
    (dict(interval=16000, max_keep_ckpts=3, by_epoch=False), dict(max_iters=160000), 3),
    (dict(interval=16000, max_keep_ckpts=-1, by_epoch=False), dict(max_iters=160000), 10),
    (dict(interval=16000, by_epoch=False), dict(max_iters=150000), 10),
    (dict(interval=16000, by_epoch=False, save_last=False), dict(max_iters=150000), 9),
    (dict(interval=10**6, by_epoch=False), dict(max_iters=240), 1),
    (dict(interval=2, max_keep_ckpts=5), dict(max_epochs=20), 5),
    (dict(interval=-1), dict(max_epochs=20), 1),
    (None, dict(max_epochs=7), 7),
])
def test_the_number_of_checkpoints_that_stay(hook, train, kept):
    cfg = Config(dict(train_cfg=train, default_hooks=dict(checkpoint=hook) if hook else {}))
    assert machine.kept_checkpoints(cfg) == kept


class BuiltRunner:
    """As much of a runner as the check looks at."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.model, self.warnings = cfg, TinySegmentor(), []
        self.logger = namedtuple('Logger', 'warning')(self.warnings.append)


@pytest.fixture
def runner(tmp_path) -> BuiltRunner:
    return BuiltRunner(Config(dict(
        work_dir=str(tmp_path / 'run'), train_cfg=dict(max_iters=100), param_scheduler=[],
        default_hooks=dict(checkpoint=dict(interval=10, by_epoch=False, save_best='mIoU', max_keep_ckpts=2)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1, momentum=.9)))))


def free(monkeypatch, size: int) -> None:
    monkeypatch.setattr(machine.shutil, 'disk_usage', lambda place: namedtuple('Usage', 'free')(size))


def test_the_disk_must_have_room_for_all_checkpoints_and_the_one_being_written(runner, monkeypatch):
    size = machine.checkpoint_size(runner.cfg, runner.model)
    free(monkeypatch, 4 * size)  # 2 kept, 1 best, 1 being written
    engine.check_run(runner)
    free(monkeypatch, 4 * size - 1)
    with pytest.raises(SystemExit, match=r'GiB free, but checkpoints need .* 2 to keep, 1 of the best and 1 being'):
        engine.check_run(runner)
    runner.cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    free(monkeypatch, 11 * size)
    with pytest.raises(SystemExit, match='10 to keep'):
        engine.check_run(runner)


def test_checkpoints_of_an_earlier_start_are_not_counted_twice(runner, monkeypatch, tmp_path):
    size = machine.checkpoint_size(runner.cfg, runner.model)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/iter_10.pth').write_bytes(bytes(size))
    free(monkeypatch, 3 * size)
    engine.check_run(runner)
    free(monkeypatch, 3 * size - 1)
    with pytest.raises(SystemExit, match='free'):
        engine.check_run(runner)


@pytest.mark.parametrize('ends, by_epoch, train, words', [
    ([100], False, dict(max_iters=100), None), ([10, 100], False, dict(max_iters=100), None),
    ([100], True, dict(max_iters=100), None), ([], False, dict(max_iters=100), None),
    ([160000], False, dict(max_iters=100), 'does not come to its end'), ([10, 50], False, dict(max_iters=100), 'stays'),
    ([20], True, dict(max_epochs=10), 'max_epochs is 10'),
])
def test_a_schedule_of_another_length_is_warned_of(ends, by_epoch, train, words, runner):
    runner.cfg.train_cfg = train
    runner.cfg.param_scheduler = [dict(type='LinearLR', end=end, by_epoch=by_epoch) for end in ends]
    engine.check_run(runner)
    said = [warning for warning in runner.warnings if 'param_scheduler' in warning]
    assert [words in warning for warning in said] == [True] * (words is not None)


@pytest.mark.parametrize('hook, warned', [
    (dict(interval=4), False), (dict(interval=3), True), (dict(interval=-1), False), (dict(), False)])
def test_a_checkpoint_within_a_step_is_warned_of(hook, warned):
    cfg = Config(dict(optim_wrapper=dict(accumulative_counts=2), train_cfg=dict(max_iters=9),
                      default_hooks=dict(checkpoint=dict(hook, by_epoch=False))))
    assert any('is not a multiple of' in warning for warning in values.split_steps(cfg)) == warned


def test_the_keys_that_are_known_are_those_the_runner_reads(monkeypatch):
    """Fails where MMEngine reads another key, which would then be taken for a slip or not be protected."""
    read = set()

    class Spy(dict):

        def get(self, name, default=None):
            read.add(name)
            return super().get(name, default)

        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

        def __deepcopy__(self, memo):
            return self

    monkeypatch.setattr(mmengine.runner.Runner, '__init__', lambda self, **arguments: None)
    mmengine.runner.Runner.from_cfg(Spy(model=1, work_dir=2))
    assert read <= keys.TOP_LEVEL and len(read) > 20

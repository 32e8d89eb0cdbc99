"""The runner's guards: precision, resume, batch shares, parameter groups, checkpoints."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from tiny import TinySegmentor
from torch import nn

import mmseg_gpt.engine as engine
from mmseg_gpt.engine.hooks import parameter_table
from mmseg_gpt.engine.loaders import share_batch
from mmseg_gpt.engine.optimizer import merged

ROOT = Path(__file__).parents[1]
MAIN = ROOT / 'configs/setr_pup_gpt_mae_ade20k.py'


# --- command line -> config ------------------------------------------------------------------------


def test_read_config_sets_the_work_dir_and_options():
    cfg = engine.read_config(MAIN, ['train_cfg.max_iters=7'])
    assert Path(cfg.work_dir) == Path('work_dirs/setr_pup_gpt_mae_ade20k') and cfg.train_cfg.max_iters == 7
    assert engine.read_config(MAIN, work_dir='elsewhere').work_dir == 'elsewhere'
    with pytest.raises(SystemExit, match='no config'):
        engine.read_config('configs/setr_pup_gtp.py')


def test_what_follows_from_an_option_is_changed_as_well():
    model = engine.read_config(MAIN, ['model.crop_size=(256,256)', 'model.num_classes=19']).model
    assert model.backbone.img_size == 256 and model.data_preprocessor.size == (256, 256)
    assert model.test_cfg.crop_size == (256, 256) and model.test_cfg.stride == (170, 170)
    assert [head.num_classes for head in (model.decode_head, *model.auxiliary_head)] == [19, 19, 19]


def test_options_may_name_what_only_the_complete_model_has():
    model = engine.read_config(MAIN, [
        'model.backbone.out_indices=(2,5,8,11)', 'model.auxiliary_head.2.loss_decode.loss_weight=0.2',
        'model.decode_head.in_channels=5', 'model.data_preprocessor.mean=[1,2,3]']).model
    assert [head.in_index for head in model.auxiliary_head] == [0, 1, 2] and model.decode_head.in_index == 3
    assert [head.loss_decode.loss_weight for head in model.auxiliary_head] == [.4, .4, .2]
    assert model.decode_head.in_channels == 5 and model.data_preprocessor.mean == [1, 2, 3]


@pytest.mark.parametrize('option, said', [
    ('vit.arch=large', 'nothing reads such a key'), ('num_classes=19', 'nothing reads such a key'),
    ('crop_size=(256,256)', 'nothing reads such a key'), ('model.crop_siz=(256,256)', 'is "crop_size" meant'),
    ('model.auxiliary_head.2.align_corners=True', 'a list of 2'), ('model.decode_head.num_classe=3', '"num_classes"'),
    ('model.backbone.mean=[1,2]', 'data_preprocessor.mean has 2 entries'),
    ('model.data_preprocessor.mean=[1,2]', 'data_preprocessor.mean has 2 entries')])
def test_options_that_change_nothing_or_contradict_others_are_refused(option, said):
    with pytest.raises(SystemExit, match=said):
        engine.read_config(MAIN, [option])


@pytest.mark.parametrize('option, said', [
    ('model.crop_size=(256,256)', 'would change nothing'), ('model.num_classes=19', 'leave one of them out')])
def test_a_complete_config_does_not_take_what_everything_in_it_follows_from(tmp_path, option, said):
    engine.read_config(MAIN).dump(tmp_path / 'complete.py')
    with pytest.raises(SystemExit, match=said):
        engine.read_config(tmp_path / 'complete.py', [option])


def test_an_option_may_say_what_a_config_lacks(tmp_path):
    (tmp_path / 'part.py').write_text(f"_base_ = ['{MAIN}']\nmodel = dict(num_classes=None)")
    assert engine.read_config(tmp_path / 'part.py', ['model.num_classes=7']).model.decode_head.num_classes == 7
    with pytest.raises(SystemExit, match='num_classes is missing'):
        engine.read_config(tmp_path / 'part.py', ['train_cfg.max_iters=7'])


def test_resume_path_must_be_there(tmp_path):
    with pytest.raises(SystemExit, match=r'iter_9\.pth'):
        engine.set_resume(Config(dict(work_dir=str(tmp_path))), str(tmp_path / 'iter_9.pth'))


def test_resume_without_a_checkpoint_is_a_first_start(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    engine.set_resume(cfg, True)
    assert not cfg.resume and cfg.load_from is None
    cfg.load_from = 'weights.pth'
    engine.set_resume(cfg, True)
    assert not cfg.resume and cfg.load_from == 'weights.pth'


def test_no_resume_leaves_the_config_alone():
    cfg = Config(dict(load_from='weights.pth', work_dir='absent'))
    engine.set_resume(cfg, False)
    assert cfg.load_from == 'weights.pth' and 'resume' not in cfg


# --- precision -------------------------------------------------------------------------------------


def test_bf16_runs_the_forward_in_bfloat16_on_this_device():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))))
    engine.set_precision(cfg, 'bf16')
    model = nn.Linear(3, 3)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    with wrapper.optim_context(model):
        out = model(torch.ones(1, 3))
    assert out.dtype == torch.bfloat16
    before = model.weight.clone()
    wrapper.update_params(out.float().sum())
    assert not torch.equal(model.weight, before) and model.weight.dtype == torch.float32


def test_no_amp_changes_nothing():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    engine.set_precision(cfg, None)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match='bf16'):
        engine.set_precision(Config(dict(optim_wrapper=dict(type='OptimWrapper'))), 'fp16')


# --- several processes -----------------------------------------------------------------------------


def test_the_batch_is_shared_among_processes():
    loader = ConfigDict(batch_size=16)
    assert share_batch(loader, 4).batch_size == 4
    assert loader.batch_size == 16, 'the config that is saved must keep the whole batch'
    with pytest.raises(SystemExit, match='divided among 3'):
        share_batch(loader, 3)


@pytest.mark.parametrize('asked', [None, 'none', 'pytorch', 'slurm'])
@pytest.mark.parametrize('torchrun', [False, True])
def test_launcher(monkeypatch, asked, torchrun):
    for variable in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(variable, '0') if torchrun else monkeypatch.delenv(variable, raising=False)
    if asked == 'pytorch' and not torchrun:
        with pytest.raises(SystemExit, match='torchrun'):
            engine.read_config(MAIN, launcher=asked)
    else:
        expected = asked or ('pytorch' if torchrun else 'none')
        assert engine.read_config(MAIN, launcher=asked).launcher == expected


# --- what is trained -------------------------------------------------------------------------------


def test_optimiser_has_the_trained_parameters_with_their_learning_rates():
    model = TinySegmentor()
    wrapper = build_optim_wrapper(model, ConfigDict(
        type='OptimWrapper', constructor='TrainedPartsConstructor', optimizer=dict(type='SGD', lr=0.1),
        paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)})))
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(1. if 'head' in name else 0.1), name
    frozen_groups = [id(p) for p in model.backbone.blocks.parameters() if id(p) in rates]
    assert not frozen_groups
    assert [type(group) for group in wrapper.optimizer.param_groups] == [dict, dict], 'one for each learning rate'


@pytest.mark.parametrize('keys', [{}, {'backbone': dict(lr_mult=0.3)}, {'gate_prior': dict(decay_mult=2.)}], ids=str)
def test_gates_and_temperatures_are_not_decayed(keys):
    model = TinySegmentor()
    wrapper = build_optim_wrapper(model, ConfigDict(
        type='OptimWrapper', constructor='TrainedPartsConstructor',
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.3), paramwise_cfg=dict(custom_keys=keys)))
    decayed = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    spared = ('backbone.prompt.gate_prior', 'backbone.temperature')
    assert {name: decayed[id(p)] for name, p in model.named_parameters() if p.requires_grad} == {
        name: 0. if name in spared else 0.3 for name, p in model.named_parameters() if p.requires_grad}


def test_groups_of_equal_settings_are_one_and_others_are_not():
    a, b, c, d = (nn.Parameter(torch.zeros(1)) for _ in range(4))
    one, two = merged([dict(params=[a], lr=1., weight_decay=0.), dict(params=[b], lr=1.),
                       dict(weight_decay=0., lr=1., params=[c, d])])
    assert one == dict(params=[a, c, d], lr=1., weight_decay=0.) and two == dict(params=[b], lr=1.)


def test_parameter_table_counts_each_part():
    model = TinySegmentor()
    rows = {row[0]: row[1:] for row in parameter_table(model).rows}
    assert rows['backbone.prompt'] == ['18', '0']  # 2 tokens of 8, and 2 gates
    assert rows['backbone.temperature'] == ['3', '0']
    assert rows['decode_head'] == ['36', '0']
    assert rows['backbone.blocks'][0] == '0'
    assert rows['total'][0].startswith('57 (')

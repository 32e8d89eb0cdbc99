"""tools/convert_checkpoint.py: layouts of others, whole checkpoints, those of stock MMEngine, and what a file is."""

import hashlib
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from vit_files import (
    ARCH,
    DINOV2_LAYOUTS,
    DINOV3_LAYOUTS,
    REGISTERS,
    TORCH_LAYOUTS,
    assert_filled,
    assert_refused,
    build,
    mae_pretraining,
    moco_positions,
    our_own,
    random_vit,
    save,
    to_jax,
)

from mmseg_gpt.checkpoints import CheckpointError, PretrainedViT, load_vit, read_file, read_state_dict
from mmseg_gpt.checkpoints.export import EXPORTS
from mmseg_gpt.checkpoints.seal import check_seal, seal
from mmseg_gpt.convert import AS_IS, convert, describe, grouped

TOOL = Path(__file__).parents[1] / 'tools/convert_checkpoint.py'


@pytest.fixture
def run(capsys, monkeypatch) -> Callable[..., SimpleNamespace]:
    """Runs the tool in this process: starting another one takes seconds."""

    def call(*args: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
            code, said = 0, ''
        except SystemExit as end:  # as Python does it: a text goes to stderr and means 1
            code, said = (1, end.code) if isinstance(end.code, str) else (end.code or 0, '')
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err + said)

    return call


def test_the_tool_can_be_started(tmp_path):
    path = save(random_vit(), tmp_path / 'vit.pth')
    command = [sys.executable, TOOL, '--list', path, '--sha256', '0' * 64]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and 'its SHA-256 is' in result.stderr and 'Traceback' not in result.stderr


ALL_LAYOUTS = {name: (make, {}) for name, make in TORCH_LAYOUTS.items()} | DINOV2_LAYOUTS | DINOV3_LAYOUTS


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('target', EXPORTS)
@pytest.mark.parametrize('source', ALL_LAYOUTS)
def test_every_layout_comes_back_the_same(source, target, suffix, tmp_path):
    make, options = ALL_LAYOUTS[source]
    state, vit = random_vit(**options), build(**options)
    path, converted = save(make(state), tmp_path / 'vit.pth'), tmp_path / f'converted{suffix}'
    refused = {'mmpretrain': 'num_registers', 'mmsegmentation': 'layer_scale'}.get(target)
    is_dinov3 = 'rotary' in options
    if refused in options or (target in ('dinov3', 'huggingface') and not is_dinov3):
        with pytest.raises(CheckpointError, match=f'vit.pth: ({target} has no place|this layout is for DINOv3 alone)'):
            convert(path, converted, target)
        assert list(tmp_path.iterdir()) == [path]
        return
    count = convert(path, converted, target)
    assert is_dinov3 or count == len(state)
    if target == 'timm' and 'num_registers' in options and not is_dinov3:  # there CLS has no position but in the token
        state['cls_token'] = state['cls_token'] + state['pos_embed'][:, :1]
        state['pos_embed'][:, 0] = 0
    load_vit(vit, converted)
    assert_filled(vit, state, vit.state_dict())
    assert suffix == '.safetensors' or check_seal(converted)


def test_an_npz_is_converted_too(tmp_path):
    state, vit = random_vit(), build()
    np.savez(tmp_path / 'vit.npz', **to_jax(state))
    convert(tmp_path / 'vit.npz', tmp_path / 'vit.safetensors', 'timm')
    load_vit(vit, tmp_path / 'vit.safetensors')
    assert_filled(vit, state, vit.state_dict())
    assert 'attention heads  4\n' in describe(tmp_path / 'vit.npz')


@pytest.mark.parametrize('options', [{}, dict(layer_scale=True), REGISTERS], ids=['plain', 'LayerScale', 'registers'])
def test_timm_gives_the_same_numbers_with_what_is_written_for_it(options, tmp_path):
    timm = pytest.importorskip('timm.models.vision_transformer')
    registers = options.get('num_registers', 0)
    theirs = timm.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=4, num_classes=0, reg_tokens=registers,
        no_embed_class=bool(registers), init_values=1. if options else None).double().eval()
    ours = build(prompt=None, temperature=False, **options).double()
    path = save(our_own({k: v.double() for k, v in random_vit(**options).items()}), tmp_path / 'vit.pth')
    load_vit(ours, path)
    convert(path, tmp_path / 'timm.safetensors', 'timm')
    theirs.load_state_dict(read_state_dict(tmp_path / 'timm.safetensors'))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(images)[0], theirs(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('layer_scale', [False, True])
def test_mmpretrain_gives_the_same_numbers_with_what_is_written_for_it(layer_scale, tmp_path):
    backbones = pytest.importorskip('mmpretrain.models')
    theirs = backbones.VisionTransformer(
        arch=dict(embed_dims=16, num_layers=3, num_heads=4, feedforward_channels=64), img_size=32, patch_size=8,
        layer_scale_init_value=float(layer_scale)).double()
    theirs.eval()  # returns None there
    ours = build(prompt=None, temperature=False, layer_scale=layer_scale).double()
    path = save({k: v.double() for k, v in random_vit(layer_scale=layer_scale).items()}, tmp_path / 'vit.pth')
    load_vit(ours, path)
    convert(path, tmp_path / 'theirs.pth', 'mmpretrain')
    state = read_state_dict(tmp_path / 'theirs.pth')
    theirs.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items()})
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(images)[0], theirs(images)[0], rtol=1e-10, atol=1e-10)


def test_mmsegmentation_takes_what_is_written_for_it(tmp_path):
    backbones = pytest.importorskip('mmseg.models.backbones')
    theirs = backbones.VisionTransformer(img_size=32, patch_size=8, patch_bias=True, embed_dims=16, num_layers=3,
                                         num_heads=4, mlp_ratio=4, final_norm=True)
    convert(save(random_vit(), tmp_path / 'vit.pth'), tmp_path / 'theirs.pth', 'mmsegmentation')
    state = read_state_dict(tmp_path / 'theirs.pth')
    theirs.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items()})  # strict


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_whole_checkpoint_keeps_all_its_names(suffix, tmp_path):
    content = our_own(random_vit())
    content['meta'] = dict(iter=7, dataset_meta=dict(classes=('wall', 'sky'), palette=[[1, 2, 3], [4, 5, 6]]))
    path = save(content, tmp_path / 'iter_7.pth')
    convert(path, tmp_path / f'whole{suffix}', AS_IS)
    state = read_state_dict(tmp_path / f'whole{suffix}')
    assert state.keys() == content['state_dict'].keys()
    assert all(torch.equal(state[k], v) for k, v in content['state_dict'].items())
    if suffix == '.pth':
        meta = read_file(tmp_path / 'whole.pth')['meta']
        assert meta['dataset_meta'] == dict(classes=['wall', 'sky'], palette=[[1, 2, 3], [4, 5, 6]])
        assert meta['source_sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()


# --- Checkpoints of stock MMEngine ---


def mmengine_checkpoint(path: Path) -> dict:
    """What MMEngine 0.10.7's runner writes: plain weights, and a message hub of objects."""
    hub = MessageHub.get_instance(f'old {path}')
    hub.update_scalars(dict(loss=dict(value=0.5, count=2), lr=np.float64(0.1)))
    hub.update_scalar('acc', torch.tensor(3.))
    hub.update_info('iter', 7)
    hub.update_info('best', np.float32(1.5))
    hub.update_info('confusion', np.arange(6.).reshape(2, 3))
    content = {**our_own(random_vit()), 'message_hub': hub.state_dict(), 'optimizer': dict(state={}, param_groups=[])}
    content['meta'] = dict(iter=7, dataset_meta=dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]]), seed=0)
    torch.save(content, path)
    return content


def test_a_checkpoint_of_stock_mmengine_is_refused_and_converted(run, tmp_path):
    path = tmp_path / 'iter_7.pth'
    content = mmengine_checkpoint(path)
    assert_refused(build(), path, r'checkpoint of stock MMEngine.*HistoryBuffer.*python tools/convert_checkpoint.py')
    result = run('--layout', AS_IS, path, tmp_path / 'new.pth')
    assert result.returncode == 0, result.stderr
    new = read_file(tmp_path / 'new.pth')  # weights_only, nothing allowed
    assert new['state_dict'].keys() == content['state_dict'].keys()
    assert all(torch.equal(new['state_dict'][k], v) for k, v in content['state_dict'].items())
    assert new['meta']['dataset_meta']['classes'] == ['a', 'b']
    convert(path, tmp_path / 'backbone.safetensors', 'timm')
    load_vit(build(), tmp_path / 'backbone.safetensors')
    assert 'layout           mmseg_gpt' in describe(path)


def test_objects_beside_those_of_mmengine_are_refused_by_the_converter_too(tmp_path):
    path = tmp_path / 'iter_7.pth'
    content = mmengine_checkpoint(path)
    content['meta']['where'] = tmp_path
    torch.save(content, path)
    for route in (read_file, describe, lambda p: convert(p, tmp_path / 'new.pth', AS_IS)):
        with pytest.raises(CheckpointError, match='they can run code'):
            route(path)
    assert os.listdir(tmp_path) == ['iter_7.pth']


# --- The tool ---


def test_list_says_what_a_file_is(run, tmp_path):
    path = save(mae_pretraining(random_vit()), tmp_path / 'vit.pth')
    result = run('--list', path)
    assert result.returncode == 0, result.stderr
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = dict(re.split(' {2,}', line, maxsplit=1) for line in result.stdout.splitlines()[:12])
    assert rows['sha256'] == digest and rows['sealed'] == 'no' and rows['layout'] == 'MAE pretraining'
    assert (rows['ViT'], rows['patch'], rows['grid']) == ('a ViT, width 16, 3 blocks, MLP 64', '8', '4x4')
    assert (rows['registers'], rows['LayerScale'], rows['attention heads']) == ('0', 'no', 'not in the file')
    parameters = sum(v.numel() for v in random_vit().values())
    assert rows['weights'] == f'{len(random_vit())}, with {parameters:,} parameters'
    assert rows['dtypes'] == f'float32 ({len(random_vit())})'
    assert 'left over        4 names: mask_token, decoder_pos_embed, decoder_embed.weight' in result.stdout
    seal(path)
    assert 'sealed           yes' in describe(path)


@pytest.mark.parametrize('options', [{}, REGISTERS], ids=['plain', 'registers'])
def test_the_config_lines_of_list_load_the_file(options, tmp_path):
    arch = dict(embed_dims=384, num_layers=12, num_heads=6, mlp_ratio=4)
    state = {k: torch.randn(v.shape) for k, v in build(arch=arch, img_size=16, **options).vit_state().items()}
    path = save(our_own(state), tmp_path / 'vit.pth')
    lines = describe(path).split('In a config:')[1]
    settings = eval(lines.strip().removeprefix('model = '), {'dict': dict})  # our own words
    assert settings['backbone']['arch'] == 'small'
    settings['backbone'].pop('init_cfg')
    vit = build(img_size=16, **settings['backbone'])
    load_vit(vit, path)
    assert_filled(vit, state, vit.state_dict())


def test_list_of_moco_v3_names_its_12_heads(tmp_path):
    arch = dict(embed_dims=384, num_layers=2, num_heads=12, mlp_ratio=1)
    state = {k: torch.randn(v.shape) for k, v in build(arch=arch).vit_state().items()}
    state['pos_embed'] = moco_positions(4, 384)
    path = save(TORCH_LAYOUTS['MoCo v3 linear probe'](state), tmp_path / 'vit.pth.tar')
    assert 'arch=dict(embed_dims=384, num_layers=2, num_heads=12, mlp_ratio=1)' in describe(path)


def test_many_weights_that_are_left_over_are_counted_by_part():
    few = [f'decode_head.{i}' for i in range(8)]
    assert grouped(few) == few
    assert grouped([*few, 'decode_head.8', 'mask_token']) == ['decode_head (9)', 'mask_token']


def test_list_says_what_a_vit_s_saved_in_data_parallel_training_does_not_show(tmp_path):
    arch = dict(embed_dims=384, num_layers=2, num_heads=6, mlp_ratio=1)
    state = {k: torch.randn(v.shape) for k, v in build(arch=arch).vit_state().items()}
    said = describe(save(TORCH_LAYOUTS['MoCo v3 linear probe'](state), tmp_path / 'vit.pth.tar'))
    assert 'MoCo v3 linear' not in said and 'num_heads=...' in said
    assert "attention heads  not in the file; a released ViT-S has 6 (MoCo v3's has 12)" in said


def test_list_and_convert_take_the_model_that_key_names(run, tmp_path):
    state, averaged = random_vit(), random_vit()
    path = save(dict(model=state, model_ema=averaged), tmp_path / 'vit.pth')
    for args in (('--list', path), (path, tmp_path / 'x.pth'), ('--layout', AS_IS, path, tmp_path / 'x.pth')):
        result = run(*args)
        assert result.returncode == 1 and "holds 2 models, under 'model' and 'model_ema'" in result.stderr
        assert '--key model_ema' in result.stderr
    assert "key='model_ema'" in run('--list', '--key', 'model_ema', path).stdout
    for layout in ('timm', AS_IS):
        result = run(path, tmp_path / 'x.safetensors', '--key', 'model_ema', '--layout', layout, '--force')
        assert result.returncode == 0, result.stderr
        written = read_state_dict(tmp_path / 'x.safetensors')
        assert written.keys() == averaged.keys() and all(torch.equal(written[k], v) for k, v in averaged.items())
    settings = eval(describe(path, 'model').split('In a config:')[1].strip().removeprefix('model = '), {'dict': dict})
    init_cfg = settings['backbone']['init_cfg']
    assert init_cfg.pop('type') == 'PretrainedViT'
    vit = build()
    PretrainedViT(**init_cfg)(vit)
    assert_filled(vit, state, vit.state_dict())


@pytest.mark.parametrize('message, code, args', [
    ('no_such.pth does not exist', 1, ('--list', 'no_such.pth')),
    ('no_such.pth does not exist', 1, ('no_such.pth', 'x.pth')),
    ('is there already; --force overwrites it', 1, ('vit.pth', 'there.pth')),
    ('must end in .pth or .safetensors', 1, ('vit.pth', 'x.bin')),
    ('its SHA-256 is', 1, ('vit.pth', 'x.pth', '--sha256', '0' * 64)),
    ('must be the 64 hexadecimal digits', 1, ('--list', 'vit.pth', '--sha256', '12')),
    ('holds no weights', 1, ('empty.pth', 'x.pth')),
    ('cannot be loaded as weights', 1, ('page.pth', 'x.pth')),
    ('is not a ViT checkpoint I know', 1, ('--list', 'other.pth')),
    ('there is no folder no/such/folder', 1, ('vit.pth', 'no/such/folder/x.pth')),
    ('give either --list or DST', 2, ('vit.pth', )),
    ('give either --list or DST', 2, ('--list', 'vit.pth', 'x.pth')),
    ("invalid choice: 'keras'", 2, ('vit.pth', 'x.pth', '--layout', 'keras')),
])
def test_a_wrong_command_line_says_so_and_writes_nothing(message, code, args, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(random_vit(), Path('vit.pth'))
    save({}, Path('empty.pth'))
    save({'fc.weight': torch.ones(3)}, Path('other.pth'))
    for name in ('there.pth', 'page.pth'):
        Path(name).write_text('<html>')
    before = sorted(os.listdir())
    result = run(*args)
    assert result.returncode == code and message in result.stderr and 'Traceback' not in result.stderr
    assert sorted(os.listdir()) == before and Path('there.pth').read_text() == '<html>'


def test_help_names_the_layouts_and_force_overwrites(run, tmp_path):
    said = run('--help').stdout
    assert all(name in said for name in (*EXPORTS, AS_IS, '--force', 'timm://', 'Exit code'))
    path, target = save(random_vit(), tmp_path / 'vit.pth'), tmp_path / 'x.safetensors'
    target.write_text('old')
    result = run(path, target, '--force')
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(target.read_bytes()).hexdigest() in result.stdout
    load_vit(build(), target)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, target = save(random_vit(), tmp_path / 'vit.pth'), tmp_path / 'x.pth'
    shutil.copy(path, target)
    monkeypatch.setattr('mmseg_gpt.convert.seal', lambda path: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match=r'x\.pth cannot be written: disk full'):
        convert(path, target, 'timm', force=True)
    assert target.read_bytes() == path.read_bytes() and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize('name, change', [
    ('nan', lambda s: {**s, 'norm.weight': torch.full((16, ), torch.nan)}),
    ('missing', lambda s: {k: v for k, v in s.items() if k != 'blocks.1.norm1.bias'}),
    ('no patches', lambda s: {k: v for k, v in s.items() if k != 'patch_embed.proj.weight'}),
    ('no mlp', lambda s: {k: v for k, v in s.items() if 'mlp' not in k}),
    ('unexpected', lambda s: {**s, 'x': torch.ones(1)}),
    ('one position', lambda s: {**s, 'pos_embed': s['pos_embed'][:, :1]}),
])
def test_a_broken_vit_is_not_converted(name, change, tmp_path):
    path = save(change(random_vit()), tmp_path / 'vit.pth')
    for route in (describe, lambda p: convert(p, tmp_path / 'x.pth', 'timm')):
        with pytest.raises(CheckpointError, match=r'vit\.pth.*holds no whole'):
            route(path)
    assert os.listdir(tmp_path) == ['vit.pth']


def test_no_mutation_is_converted(tmp_path, monkeypatch):
    from test_checkpoints import mutate
    dice, good, mutant = random.Random(3), random_vit(), {}
    monkeypatch.setattr('mmseg_gpt.convert.read_file', lambda path, old_mmengine: dict(mutant))
    (tmp_path / 'vit.pth').touch()
    for _ in range(200):
        mutant, what = mutate(good, list(good), dice)
        if what.startswith('drop: norm') or 'norm.' in what.split(': ')[1]:  # a ViT may have no final norm
            continue
        with pytest.raises(CheckpointError):
            convert(tmp_path / 'vit.pth', tmp_path / 'x.safetensors', 'timm', force=True)
    assert ARCH['num_layers'] == 3 and not (tmp_path / 'x.safetensors').exists()

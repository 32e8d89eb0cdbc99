"""Loading a pretrained ViT: every weight right, or an error that names the key and a backbone left as it was."""

import argparse
import copy
import hashlib
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from vit_files import (
    ARCH,
    DINOV2_LAYOUTS,
    DINOV3_LAYOUTS,
    MMSEG_ATTENTION,
    REAL_ARCH,
    TORCH_LAYOUTS,
    WRAPPED,
    State,
    assert_filled,
    assert_refused,
    build,
    mae_pretraining,
    moco_linear_probe,
    moco_positions,
    our_own,
    prefixed,
    random_vit,
    renamed,
    save,
    shrunk,
    to_jax,
    to_openmmlab,
    without,
)

from mmseg_gpt.checkpoints import CheckpointError, PretrainedViT, load_vit, read_state_dict
from mmseg_gpt.checkpoints.formats import is_moco_probe
from mmseg_gpt.checkpoints.seal import seal
from mmseg_gpt.models import GatedPromptViT


@pytest.fixture
def vit() -> GatedPromptViT:
    return build()


@pytest.mark.parametrize('layout', TORCH_LAYOUTS)
def test_every_layout_fills_every_weight(layout, vit, tmp_path, log):
    state = random_vit()
    untouched = copy.deepcopy(vit.state_dict())
    load_vit(vit, save(TORCH_LAYOUTS[layout](state), tmp_path / 'vit.pth.tar'))
    assert_filled(vit, state, untouched)
    assert any(f'all {len(state)} ViT weights loaded' in r.getMessage() for r in log)


def test_npz_fills_every_weight(vit, tmp_path):
    state = random_vit()
    untouched = copy.deepcopy(vit.state_dict())
    np.savez(tmp_path / 'vit.npz', **to_jax(state))
    load_vit(vit, tmp_path / 'vit.npz')
    assert_filled(vit, state, untouched)


@pytest.mark.parametrize('layout', ['timm classifier', 'mmpretrain backbone'])
def test_safetensors_fills_every_weight(layout, vit, tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    state = random_vit()
    untouched = copy.deepcopy(vit.state_dict())
    safetensors.save_file(TORCH_LAYOUTS[layout](state), tmp_path / 'vit.safetensors')
    load_vit(vit, tmp_path / 'vit.safetensors')
    assert_filled(vit, state, untouched)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_other_precision_are_converted(dtype, vit, tmp_path):
    state = {name: value.to(dtype) for name, value in random_vit().items()}
    load_vit(vit, save(state, tmp_path / 'vit.pth'))
    assert_filled(vit, state, vit.state_dict())
    assert {p.dtype for p in vit.parameters()} == {torch.float32}


def test_a_backbone_without_a_norm_needs_none_and_ignores_the_files(tmp_path):
    state = random_vit()
    featmap = build(out_type='featmap')
    load_vit(featmap, save(state, tmp_path / 'with.pth'))
    assert_filled(featmap, state, featmap.state_dict())
    without = {name: value for name, value in state.items() if not name.startswith('norm.')}
    load_vit(featmap, save(without, tmp_path / 'without.pth'))
    assert_refused(build(), tmp_path / 'without.pth', r'missing \(2\): norm.weight, norm.bias')


def test_of_a_file_with_several_vits_the_base_encoder_is_taken(vit, tmp_path):
    state = random_vit()
    content = TORCH_LAYOUTS['MoCo v3 pretraining'](state)
    content['state_dict'] = dict(reversed(content['state_dict'].items()))
    load_vit(vit, save(content, tmp_path / 'vit.pth'))
    assert_filled(vit, state, vit.state_dict())


# --- The numbers of other libraries' models ---


def jax_vit(w: dict[str, np.ndarray], images: np.ndarray, patch: int) -> np.ndarray:
    """Evaluates JAX kernels as flax's layers do, by einsum: images (B, H, W, 3) -> the normed CLS token (B, D)."""

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * w[f'{name}/scale'] + w[f'{name}/bias']

    b, h, width, _ = images.shape
    cells = images.reshape(b, h // patch, patch, width // patch, patch, 3)
    x = np.einsum('bipjqc,pqcd->bijd', cells, w['embedding/kernel']) + w['embedding/bias']
    x = np.concatenate([np.repeat(w['cls'], b, axis=0), x.reshape(b, -1, x.shape[-1])], axis=1)
    x = x + w['Transformer/posembed_input/pos_embedding']
    for i in range(ARCH['num_layers']):
        block = f'Transformer/encoderblock_{i}'
        attention = f'{block}/MultiHeadDotProductAttention_1'
        y = norm(f'{block}/LayerNorm_0', x)
        q, k, v = (np.einsum('bnd,dhk->bnhk', y, w[f'{attention}/{part}/kernel']) + w[f'{attention}/{part}/bias']
                   for part in ('query', 'key', 'value'))
        score = np.exp(np.einsum('bnhk,bmhk->bhnm', q, k) / np.sqrt(q.shape[-1]))
        y = np.einsum('bhnm,bmhk->bnhk', score / score.sum(-1, keepdims=True), v)
        x = x + np.einsum('bnhk,hkd->bnd', y, w[f'{attention}/out/kernel']) + w[f'{attention}/out/bias']
        y = norm(f'{block}/LayerNorm_2', x)
        y = np.einsum('bnd,de->bne', y, w[f'{block}/MlpBlock_3/Dense_0/kernel']) + w[f'{block}/MlpBlock_3/Dense_0/bias']
        y = F.gelu(torch.from_numpy(y)).numpy()
        x = x + np.einsum('bne,ed->bnd', y, w[f'{block}/MlpBlock_3/Dense_1/kernel']) + w[
            f'{block}/MlpBlock_3/Dense_1/bias']
    return norm('Transformer/encoder_norm', x)[:, 0]


def test_jax_kernels_give_the_numbers_jax_would(tmp_path):
    arrays = {name: 0.5 * np.random.default_rng(i).standard_normal(value.shape)
              for i, (name, value) in enumerate(to_jax(random_vit()).items())}
    np.savez(tmp_path / 'vit.npz', **arrays)
    vit = build(prompt=None, temperature=False).double()
    load_vit(vit, tmp_path / 'vit.npz')
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = jax_vit(arrays, images.permute(0, 2, 3, 1).numpy(), patch=8)
    torch.testing.assert_close(vit(images)[0], torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('name', ['VisionTransformer', 'MAEViT'])
@pytest.mark.parametrize('is_whole_model', [True, False])
def test_mmpretrains_vit_gives_the_same_numbers(name, is_whole_model, tmp_path):
    backbones = pytest.importorskip('mmpretrain.models')
    arch = dict(embed_dims=16, num_layers=3, num_heads=4, feedforward_channels=64)
    theirs = getattr(backbones, name)(arch=arch, img_size=32, patch_size=8).double()
    theirs.eval()  # returns None there
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.5)
    state = theirs.state_dict()
    save(dict(state_dict=prefixed(state, 'backbone.')) if is_whole_model else state, tmp_path / 'vit.pth')
    ours = build(prompt=None, temperature=False).double()
    load_vit(ours, tmp_path / 'vit.pth')
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = theirs(images, mask=None)[0][:, 0] if name == 'MAEViT' else theirs(images)[0]
    torch.testing.assert_close(ours(images)[0], expected, rtol=1e-10, atol=1e-10)


def test_mmsegmentations_vit_gives_the_same_numbers(tmp_path):
    backbones = pytest.importorskip('mmseg.models.backbones')
    theirs = backbones.VisionTransformer(
        img_size=32, patch_size=8, patch_bias=True, embed_dims=16, num_layers=3, num_heads=4, mlp_ratio=4,
        out_indices=(0, 2), norm_cfg=dict(type='LN', eps=1e-6)).double()
    theirs.eval()  # returns None there
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.5)
    save(dict(state_dict=prefixed(theirs.state_dict(), 'backbone.')), tmp_path / 'vit.pth')
    ours = build(prompt=None, temperature=False, out_type='featmap', out_indices=(0, 2)).double()
    load_vit(ours, tmp_path / 'vit.pth')
    images = torch.randn(2, 3, 29, 37, dtype=torch.float64)  # not multiples of the patch
    for actual, expected in zip(ours(images), theirs(images), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


# --- Names and shapes of the released files, shrunk 32 times in width ---


@pytest.mark.parametrize('file, key, prefix, wrapper', [
    ('mae.json', 'full_pretraining_file', '', 'model'),
    ('mae.json', 'encoder_only_file', '', 'model'),
    ('moco.json', 'pretraining_file', 'module.base_encoder.', 'state_dict'),
    ('moco.json', 'linear_probe_file', 'module.', 'state_dict'),
    ('dino.json', 'backbone_file', '', None),
    ('openmmlab.json', 'mmpretrain_vit_base', 'backbone.', 'state_dict'),
    ('openmmlab.json', 'mmpretrain_mae_vit_base', 'backbone.', 'state_dict'),
    ('openmmlab.json', 'mmseg_vit_base', 'backbone.', 'state_dict'),
])
def test_names_of_released_files(layouts_folder, file, key, prefix, wrapper, tmp_path):
    state = shrunk(layouts_folder, file, key)
    save({wrapper: state, 'epoch': 1} if wrapper else state, tmp_path / 'vit.pth')
    is_mmseg = key == 'mmseg_vit_base'
    vit = build(arch=REAL_ARCH, patch_size=16, img_size=512 if is_mmseg else 224,
                out_type='featmap' if is_mmseg else 'cls_token')
    load_vit(vit, tmp_path / 'vit.pth')
    names = {name: name for name in vit.vit_state()}
    if file == 'openmmlab.json':
        names = {new: old for new, old in zip(names, to_openmmlab(names, MMSEG_ATTENTION if is_mmseg else ()))}
    expected = {new: state[prefix + old] for new, old in names.items()}
    assert_filled(vit, expected, vit.state_dict())


def test_names_of_the_released_npz(layouts_folder, tmp_path):
    arrays = {name: value.numpy() for name, value in
              shrunk(layouts_folder, 'supervised_npz.json', 'vit_b16').items()}
    np.savez(tmp_path / 'vit.npz', **arrays)
    vit = build(arch=REAL_ARCH, patch_size=16, img_size=224)
    load_vit(vit, tmp_path / 'vit.npz')
    last = 'Transformer/encoderblock_11'
    for name, expected in {
        'blocks.11.norm2.bias': arrays[f'{last}/LayerNorm_2/bias'],
        'blocks.11.mlp.fc2.weight': arrays[f'{last}/MlpBlock_3/Dense_1/kernel'].T,
        'blocks.11.attn.proj.bias': arrays[f'{last}/MultiHeadDotProductAttention_1/out/bias'],
        'norm.weight': arrays['Transformer/encoder_norm/scale'],
    }.items():
        assert np.array_equal(vit.get_parameter(name).detach().numpy(), expected)


# --- Files that do not fit ---


@pytest.mark.parametrize('message, change', [
    (r'missing \(1\): cls_token', lambda s: without(s, 'cls_token')),
    (r'missing \(1\): pos_embed', lambda s: without(s, 'pos_embed')),
    (r'missing \(2\): blocks.1.attn.qkv.bias, norm.bias', lambda s: without(s, 'norm.bias', 'blocks.1.attn.qkv.bias')),
    (r'missing \(1\): blocks.0.norm1.weight', lambda s: without(s, 'blocks.0.norm1.weight')),
    (r'unexpected \(1\): blocks.1.ls1.gamma', lambda s: {**s, 'blocks.1.ls1.gamma': torch.ones(16)}),
    (r'unexpected \(1\): norm_pre.weight', lambda s: {**s, 'norm_pre.weight': torch.ones(16)}),
    (r'pos_embed has 17 entries, which is not a square grid without CLS|unexpected \(1\): reg_token',
     lambda s: {**s, 'reg_token': torch.ones(1, 4, 16)}),
    (r'unexpected \(1\): blocks.0.attn.q_norm.weight', lambda s: {**s, 'blocks.0.attn.q_norm.weight': torch.ones(4)}),
    (r'missing \(1\): blocks.2.mlp.fc1.bias(?s:.*)unexpected \(1\): blocks.2.mlp.fc1_bias',
     lambda s: renamed(s, (r'^blocks\.2\.mlp\.fc1\.bias$', 'blocks.2.mlp.fc1_bias'))),
    (r'misshapen \(1\): blocks.0.mlp.fc1.weight \(file \(16, 64\), config \(64, 16\)\)',
     lambda s: {**s, 'blocks.0.mlp.fc1.weight': s['blocks.0.mlp.fc1.weight'].T}),
    (r'misshapen \(1\): cls_token \(file \(16,\), config \(1, 1, 16\)\)',
     lambda s: {**s, 'cls_token': s['cls_token'][0, 0]}),
    (r'misshapen \(1\): pos_embed', lambda s: {**s, 'pos_embed': s['pos_embed'][0]}),
    (r'misshapen \(1\): pos_embed', lambda s: {**s, 'pos_embed': s['pos_embed'][:, :0]}),
    (r'misshapen \(1\): pos_embed', lambda s: {**s, 'pos_embed': torch.cat([s['pos_embed']] * 2)}),
    (r'pos_embed has 16 entries, which is not', lambda s: {**s, 'pos_embed': s['pos_embed'][:, 1:]}),
    (r'pos_embed has 19 entries, which is not', lambda s: {**s, 'pos_embed': torch.randn(1, 19, 16)}),
    (r'not finite \(1\): norm.weight', lambda s: {**s, 'norm.weight': s['norm.weight'].index_fill(
        0, torch.tensor(3), torch.nan)}),
    (r'not finite \(1\): pos_embed', lambda s: {**s, 'pos_embed': s['pos_embed'].index_fill(
        1, torch.tensor(9), torch.inf)}),
    (r'not finite \(1\): norm.weight', lambda s: {**s, 'norm.weight': torch.full((16, ), 1e300, dtype=torch.float64)}),
    (r'not of its type \(1\): norm.weight \(file torch.int8', lambda s: {**s, 'norm.weight': s['norm.weight'].char()}),
    (r'missing \(12\): blocks.2', lambda s: {k: v for k, v in s.items() if not k.startswith('blocks.2')}),
    (r'unexpected \(12\): blocks.3', lambda s: {**s, **renamed(
        {k: v for k, v in s.items() if k.startswith('blocks.2')}, (r'blocks\.2', 'blocks.3'))}),
])
@pytest.mark.parametrize('wrap', [dict, lambda s: dict(model=s), lambda s: dict(state_dict=prefixed(s, 'module.'))],
                         ids=['timm', 'MAE', 'DDP'])
def test_a_file_that_does_not_fit_is_refused_naming_the_key(message, change, wrap, vit, tmp_path):
    assert_refused(vit, save(wrap(change(random_vit())), tmp_path / 'vit.pth'), message)


def test_a_vit_l_for_a_vit_b_is_called_so(tmp_path):
    with torch.device('meta'):
        vit, large = GatedPromptViT('base'), GatedPromptViT('large')
    state = {name: torch.zeros(1).expand(p.shape) for name, p in large.vit_state().items()}
    save(dict(model=state), tmp_path / 'vit.pth')
    with pytest.raises(CheckpointError, match=r'The file holds ViT-L \(width 1024, 24 blocks, patch 16\), '
                                              r'the config asks for ViT-B \(width 768, 12 blocks, patch 16\)'):
        load_vit(vit, tmp_path / 'vit.pth')


def test_another_patch_size_is_called_so(tmp_path):
    path = save(random_vit(patch_size=4, img_size=16), tmp_path / 'vit.pth')
    assert_refused(build(), path, r'The file holds a ViT \(width 16, 3 blocks, patch 4\), .* patch 8\)')


def test_the_small_vit_of_moco_v3_has_12_heads(tmp_path):
    # 384 wide, as all ViT-S, which have 6 heads elsewhere; no weight shows it, and the outputs would be wrong.
    arch = dict(embed_dims=384, num_layers=2, num_heads=6, mlp_ratio=1)
    state = {name: torch.randn(p.shape) for name, p in build(arch=arch).vit_state().items()}
    probe = moco_linear_probe({**state, 'pos_embed': moco_positions(4, 384)})
    rounded = dict(state_dict={name: value.half() for name, value in probe['state_dict'].items()})
    for content in (dict(state_dict=prefixed(state, 'module.base_encoder.')), probe, rounded):
        path = save(content, tmp_path / 'vit.pth')
        assert_refused(build(arch=arch), path, r'MoCo v3(?s:.*)num_heads \(file 12, config 6\)')
        load_vit(build(arch={**arch, 'num_heads': 12}), path)
    # No other file says how many heads it has: neither DINO's nor any saved in data-parallel training.
    for content in (state, moco_linear_probe(state), dict(state_dict=prefixed(state, 'module.'))):
        load_vit(build(arch=arch), save(content, tmp_path / 'dino.pth'))


def test_the_position_embedding_of_moco_v3_is_that_of_mmpretrains_moco_v3():
    embed = pytest.importorskip('mmpretrain.models.utils.position_encoding')
    theirs = embed.build_2d_sincos_position_embedding(4, 16, cls_token=True)
    assert is_moco_probe({'pos_embed': theirs})
    torch.testing.assert_close(moco_positions(4, 16), theirs)
    assert not is_moco_probe({'pos_embed': torch.cat([theirs[:, :1], theirs[:, 1:].roll(8, dims=2)], dim=1)})  # MAE's


def test_npz_shows_the_number_of_heads(tmp_path):
    state = random_vit()
    np.savez(tmp_path / 'vit.npz', **to_jax(state, num_heads=8))
    assert_refused(build(), tmp_path / 'vit.npz', r'num_heads \(file 8, config 4\)')


@pytest.mark.parametrize('name, change, message', [
    ('cls', None, 'cls is missing'),
    ('embedding/bias', None, 'embedding/bias is missing'),
    ('Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel', None, 'query/kernel is missing'),
    ('Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias', None, 'key/bias is missing'),
    ('Transformer/encoderblock_2/LayerNorm_2/scale', None, 'encoderblock_2/LayerNorm_2/scale is missing'),
    ('Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel',
     lambda a: a.transpose(1, 2, 0), 'encoderblock_1/.*/query/kernel has the shape'),
    ('Transformer/encoderblock_1/MultiHeadDotProductAttention_1/out/kernel',
     lambda a: a.reshape(16, 16), '/out/kernel has the shape'),
    ('Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel', lambda a: a.T, r'misshapen \(1\): blocks.1.mlp.fc1'),
    ('embedding/kernel', lambda a: a[0], 'embedding/kernel has the shape'),
    ('embedding/kernel', lambda a: a[..., ::-1, :, :].transpose(3, 2, 0, 1), 'embedding/kernel has the shape'),
    ('Transformer/encoderblock_1/LayerNorm_3/scale', lambda a: np.ones(16), r'unexpected \(1\): .*LayerNorm_3'),
    ('conv_root/kernel', lambda a: np.ones((7, 7, 3, 16)), r'unexpected \(1\): conv_root'),
])
def test_an_npz_that_does_not_fit_is_refused_naming_the_array(name, change, message, vit, tmp_path):
    arrays = to_jax(random_vit())
    value = arrays.pop(name, None)
    if change:
        arrays[name] = change(value)
    np.savez(tmp_path / 'vit.npz', **arrays)
    assert_refused(vit, tmp_path / 'vit.npz', message)


def test_two_names_for_one_weight_are_refused(vit, tmp_path):
    state = prefixed(to_openmmlab(random_vit()), 'backbone.')
    state['backbone.blocks.1.norm1.weight'] = torch.randn(16)
    assert_refused(vit, save(state, tmp_path / 'vit.pth'), 'two of its names both mean blocks.1.norm1.weight')


# --- The position embedding ---


@pytest.mark.parametrize('img_size, grid', [(64, (8, 8)), (16, (2, 2)), ((24, 48), (3, 6)), ((16, 64), (2, 8))])
@pytest.mark.parametrize('layout', ['MAE encoder', 'MoCo v3 pretraining'])
def test_a_position_embedding_of_another_grid_is_resized_and_the_log_says_so(layout, img_size, grid, tmp_path, log):
    # (2, 8) has as many patches as the file's (4, 4).
    vit = build(img_size=img_size)
    state = random_vit()
    load_vit(vit, save(TORCH_LAYOUTS[layout](state), tmp_path / 'vit.pth'))
    image = state['pos_embed'][:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
    resized = F.interpolate(image, grid, mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    expected = {**state, 'pos_embed': torch.cat([state['pos_embed'][:, :1], resized], dim=1)}
    assert_filled(vit, expected, vit.state_dict())
    assert any(f'resized from 4x4 to {grid[0]}x{grid[1]}' in r.getMessage() for r in log)


def test_a_position_embedding_of_the_same_grid_is_not_resized(vit, tmp_path, log):
    load_vit(vit, save(random_vit(), tmp_path / 'vit.pth'))
    assert not any('resized' in r.getMessage() for r in log)


def test_an_oblong_position_embedding_of_our_own_is_taken_as_it_is(tmp_path):
    state = random_vit(img_size=(16, 64))
    vit = build(img_size=(16, 64))
    load_vit(vit, save(our_own(state), tmp_path / 'vit.pth'))
    assert_filled(vit, state, vit.state_dict())


# --- Damaged and dangerous files ---


def test_a_missing_file(vit, tmp_path):
    assert_refused(vit, tmp_path / 'no_such.pth', 'does not exist', FileNotFoundError)
    assert_refused(vit, tmp_path, 'does not exist', FileNotFoundError)  # a folder


@pytest.mark.parametrize('suffix', ['.pth', '.pth.tar', '.npz', '.safetensors'])
@pytest.mark.parametrize('content', [b'', b'<!DOCTYPE html><html>404</html>', b'\x80\x02}q\x00', bytes(1000)])
def test_a_file_that_is_no_checkpoint(suffix, content, vit, tmp_path):
    if suffix == '.safetensors':
        pytest.importorskip('safetensors')
    path = tmp_path / f'vit{suffix}'
    path.write_bytes(content)
    assert_refused(vit, path, 'cannot be|holds no weights')


@pytest.mark.parametrize('content', [{}, [], dict(model={}), dict(state_dict=dict(x=3)), torch.zeros(3), 'text',
                                     dict(student=dict(x=torch.zeros(2)))])
def test_a_file_without_weights_is_refused_naming_what_is_expected(content, vit, tmp_path):
    assert_refused(vit, save(content, tmp_path / 'vit.pth'), "holds no weights: .*'model' or 'state_dict'")


def file_bytes(suffix: str, path: Path) -> bytes:
    """A small good checkpoint of each kind."""
    write_file(random_vit(), path)
    return path.read_bytes()


def write_file(state: State, path: Path) -> None:
    """Writes weights as the suffix says."""
    if path.suffix == '.npz':
        np.savez(path, **to_jax(state))
    elif path.suffix == '.safetensors':
        pytest.importorskip('safetensors.torch').save_file(state, path)
    else:
        torch.save(dict(model=state), path)


@pytest.mark.parametrize('suffix', ['.pth', '.npz', '.safetensors'])
@pytest.mark.parametrize('kept', [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(suffix, kept, vit, tmp_path):
    path = tmp_path / f'vit{suffix}'
    content = file_bytes(suffix, path)
    path.write_bytes(content[:int(len(content) * kept)])
    assert_refused(vit, path, 'cannot be')


@pytest.mark.parametrize('suffix', ['.pth', '.npz'])
def test_a_flipped_bit_in_a_weight_is_found_by_its_checksum(suffix, vit, tmp_path):
    path = tmp_path / f'vit{suffix}'
    content = bytearray(file_bytes(suffix, path))
    arrays = read_state_dict(path)
    weight = next(v for k, v in arrays.items() if k.endswith(('blocks.1.mlp.fc2.weight', 'encoderblock_1/MlpBlock_3/'
                                                              'Dense_1/kernel')))
    at = bytes(content).find(weight.numpy().tobytes(order='A'))
    assert at > 0
    content[at + 101] ^= 0x10
    path.write_bytes(content)
    assert_refused(vit, path, 'is damaged: the checksum|Bad CRC-32')


def damaged(content: bytes, dice: random.Random, count: int) -> Iterator[bytes]:
    """Copies with one flipped bit, often near the ends, where the tables of a zip archive are, and shortened ones."""
    for i in range(count):
        if i % 5 == 4:
            yield content[:dice.randrange(len(content))]
            continue
        at = dice.choice([dice.randrange(len(content)), dice.randrange(1000), -dice.randrange(1, 6000)])
        flipped = bytearray(content)
        flipped[at] ^= 1 << dice.randrange(8)
        yield bytes(flipped)


@pytest.mark.parametrize('kind', ['.pth', '.npz', 'sealed.pth'])
def test_a_flipped_bit_or_a_lost_end_is_refused_or_harmless(kind, vit, tmp_path, record_property):
    path, refused, tried = tmp_path / f'vit{kind}', 0, 0
    file_bytes(path.suffix, path)
    if kind == 'sealed.pth':
        seal(path)
    content, names = path.read_bytes(), read_state_dict(path).keys()
    load_vit(vit, path)
    good = copy.deepcopy(vit.state_dict())
    for copied in damaged(content, random.Random(5), 1250):
        path.write_bytes(copied)
        tried += 1
        try:
            state = read_state_dict(path)
            load_vit(vit, path)  # NumPy's archives can lose their last array
        except CheckpointError:
            refused += 1
            continue
        assert kind != 'sealed.pth', 'the seal is of every byte'
        assert state.keys() == names or kind == '.npz'
        assert all(torch.equal(value, good[name]) for name, value in vit.state_dict().items())
    assert tried == 1250 and refused > 1250 / 2
    record_property(f'refused of {tried}', refused)


@pytest.mark.parametrize('kind', ['.safetensors', 'legacy.pth'])
def test_formats_without_a_checksum_need_sha256_to_find_a_flipped_bit(kind, vit, tmp_path):
    path, state = tmp_path / f'vit{kind}', random_vit()
    if kind == '.safetensors':
        write_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    PretrainedViT(str(path), sha256=digest)(vit)
    at = content.find(state['blocks.1.mlp.fc2.weight'].numpy().tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
    PretrainedViT(str(path))(vit)  # nothing else could tell
    assert not torch.equal(vit.blocks[1].mlp.fc2.weight, state['blocks.1.mlp.fc2.weight'])
    for copied in damaged(content, random.Random(5), 200):
        path.write_bytes(copied)
        with pytest.raises(CheckpointError, match='its SHA-256 is'):
            PretrainedViT(str(path), sha256=digest)(vit)


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder), )


@pytest.mark.parametrize('environment', [{}, {'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD': '1'}])
@pytest.mark.parametrize('suffix', ['.pth', '.pkl', '.npz'])
def test_a_file_that_would_run_code_does_not(suffix, environment, vit, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trap = tmp_path / 'trap'
    content = {**random_vit(), 'extra': Evil(trap)}
    path = tmp_path / f'vit{suffix}'
    if suffix == '.npz':
        np.savez(path, **to_jax(random_vit()), extra=np.array([Evil(trap)], dtype=object))
    elif suffix == '.pkl':
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    assert_refused(vit, path, 'cannot be')
    assert not trap.exists()
    pickle.loads(pickle.dumps(Evil(trap)))  # and it is a trap
    assert trap.exists()


def test_only_the_namespace_is_allowed_beside_plain_types(vit, tmp_path, monkeypatch):
    assert_refused(vit, save({**random_vit(), 'x': Path('a')}, tmp_path / 'vit.pth'), 'holds Python objects')
    allowed = lambda: set(torch.serialization.get_safe_globals())  # noqa: E731
    load, during = torch.load, []
    monkeypatch.setattr(torch, 'load', lambda *args, **options: during.append(allowed()) or load(*args, **options))
    with torch.serialization.safe_globals([Path]):  # what others allow in this process is not allowed here
        before = allowed()
        load_vit(vit, save(mae_pretraining(random_vit()), tmp_path / 'mae.pth'))
        assert_refused(vit, tmp_path / 'vit.pth', 'holds Python objects')
        assert allowed() == before  # for these files only
    assert during == [{argparse.Namespace}] * 2


# --- Mutations: none may pass ---

MUTATIONS = 255  # of each of the 45 layouts


def mutate(file: State, names: list[str], dice: random.Random) -> tuple[State, str]:
    """Spoils one weight of the ViT in a file, by the names there, in one of eight ways, and says what it did."""
    file = dict(file)
    name = dice.choice(names)
    value = file.pop(name)
    kinds = ['drop', 'rename', 'swap', 'reshape', 'retype', 'not finite', 'add']
    kind = dice.choice(kinds + ['transpose'] * (value.ndim > 1 and value.shape != value.mT.shape))
    if kind == 'rename':
        at = dice.randrange(len(name))
        changed = dice.choice([name[:at] + name[at + 1:], name[:at] + dice.choice('aX._0') + name[at:], name.upper(),
                               name + '.weight', 'model.' + name, 'prompt.' + name, 'head.' + name])
        kind += f' to {changed}'
        file[changed] = value
    elif kind == 'swap':  # takes the name of another weight with another shape, which is then missing
        other = dice.choice([k for k in names if k != name and file[k].shape != value.shape])
        file[name] = file.pop(other)
        kind += f' with {other}'
    elif kind == 'reshape':
        file[name] = dice.choice([v for v in (value[None], value.flatten()[:-1], value[..., :1], value[:0], torch.cat(
            [value, value])) if v.shape != value.shape])
    elif kind == 'transpose':
        file[name] = value.mT
    elif kind == 'retype':
        file[name] = value.to(dice.choice([torch.int8, torch.int64, torch.bool, torch.complex64]))
    elif kind == 'not finite':
        file[name] = value.clone()
        file[name][tuple(dice.randrange(n) for n in value.shape)] = dice.choice([torch.nan, torch.inf, -torch.inf])
    elif kind == 'add':
        file[name] = value
        kind += f' {(added := name + dice.choice(["_", ".gamma", "2", "/x"]))}'
        file[added] = value
    return file, f'{kind}: {name}'


def test_no_mutation_of_a_state_dict_is_accepted(tmp_path, monkeypatch, record_property):
    """Two tensors of one shape that change places are not among them: only a checksum of the file can show that."""
    dice, accepted, tried = random.Random(11), [], 0
    kinds = {name: (make, {}) for name, make in TORCH_LAYOUTS.items()} | DINOV2_LAYOUTS | DINOV3_LAYOUTS
    kinds |= {name: (make, {}) for name, make in WRAPPED.items()}
    kinds['jax'] = (lambda state: {k: torch.from_numpy(v) for k, v in to_jax(state).items()} if state else {}, {})
    mutant: dict = {}
    # What reading returns is set here: ten thousand files would only test torch.save.
    monkeypatch.setattr('mmseg_gpt.checkpoints.load.read_file', lambda path: dict(mutant))
    monkeypatch.setattr('mmseg_gpt.checkpoints.load.weights_in', lambda content, path, key: content)
    for layout, (make, options) in kinds.items():
        vit, good = build(**options), weights_of(make(random_vit(**options)))
        names = [k for k in good if k not in weights_of(make({})) and not any(
            part in k for part in ('momentum', 'student', 'head', 'pre_logits', 'mask_token'))]
        before = copy.deepcopy(vit.state_dict())
        for _ in range(MUTATIONS):
            mutant, what = mutate(good, names, dice)
            tried += 1
            try:
                load_vit(vit, tmp_path / 'vit.pth')
                accepted.append(f'{layout}, {what}')
            except CheckpointError:
                pass
        assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items()), (layout, accepted)
        mutant = good
        load_vit(vit, tmp_path / 'vit.pth')  # and the good one is accepted, so the test can fail
    assert accepted == []
    assert tried >= 10_000
    record_property('mutations', tried)


def weights_of(content: dict) -> State:
    """What reading a file with this content gives."""
    for wrapper in ('model', 'state_dict', 'teacher'):
        content = content.get(wrapper, content)
    return content


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.npz'])
def test_two_weights_of_one_shape_that_change_places_are_found_by_sha256_only(suffix, vit, tmp_path):
    path = tmp_path / f'vit{suffix}'
    file_bytes(suffix, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    PretrainedViT(str(path), sha256=digest.upper())(vit)
    state = random_vit()
    state['blocks.0.norm1.weight'], state['blocks.1.norm1.weight'] = (
        state['blocks.1.norm1.weight'], state['blocks.0.norm1.weight'])
    write_file(state, path)
    PretrainedViT(str(path))(vit)  # nothing else could tell
    with pytest.raises(CheckpointError, match=f'its SHA-256 is .*, and sha256 asks for {digest}'):
        PretrainedViT(str(path), sha256=digest)(vit)


# --- Through mmengine ---


def test_init_weights_loads_what_init_cfg_names(tmp_path, log):
    state = random_vit()
    path = save(dict(model=state), tmp_path / 'vit.pth')
    vit = build(init_cfg=dict(type='PretrainedViT', checkpoint=str(path)))
    untouched = copy.deepcopy(vit.state_dict())
    assert not torch.equal(vit.cls_token, state['cls_token'])
    vit.init_weights()
    assert_filled(vit, state, untouched)
    assert not any('RANDOM' in r.getMessage() for r in log)


def test_init_weights_of_an_outer_module_loads_too(tmp_path):
    from mmengine.model import BaseModule
    state = random_vit()
    path = save(dict(model=state), tmp_path / 'vit.pth')
    outer = BaseModule()
    outer.backbone = build(init_cfg=dict(type='PretrainedViT', checkpoint=str(path)))
    outer.init_weights()
    assert_filled(outer.backbone, state, outer.backbone.state_dict())


def test_init_weights_raises_where_the_file_does_not_fit(tmp_path):
    path = save(without(random_vit(), 'norm.bias'), tmp_path / 'vit.pth')
    with pytest.raises(CheckpointError, match=r'missing \(1\): norm.bias'):
        build(init_cfg=dict(type='PretrainedViT', checkpoint=str(path))).init_weights()
    with pytest.raises(FileNotFoundError, match=r'no_such\.pth'):
        build(init_cfg=dict(type='PretrainedViT', checkpoint=str(tmp_path / 'no_such.pth'))).init_weights()


@pytest.mark.parametrize('options, is_warned', [({}, True), (dict(frozen=False), False)])
def test_a_frozen_backbone_without_init_cfg_is_warned_of(options, is_warned, log):
    build(**options).init_weights()
    warnings = [r.getMessage() for r in log if r.levelname == 'WARNING']
    assert any('RANDOM' in message and 'init_cfg' in message for message in warnings) == is_warned

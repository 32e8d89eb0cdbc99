"""DINOv3: rotary positions, gated MLPs and biases as in timm and transformers, files of each layout, and configs."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_configs import BACKBONES, CONFIGS, swapped
from test_configs import build as build_model
from vit_files import (
    DINOV3,
    DINOV3_LAYOUTS,
    GATED,
    NO_BIAS,
    State,
    assert_filled,
    assert_refused,
    build,
    dinov3,
    hf_dinov3,
    our_own,
    prefixed,
    random_vit,
    save,
    timm_dinov3,
    without,
)

from mmseg_gpt.adapters import frozen_source, load_model_state
from mmseg_gpt.analysis.attention import visit_attention
from mmseg_gpt.analysis.encoder import Encoder
from mmseg_gpt.checkpoints import CheckpointError, address_of, load_vit, read_state_dict
from mmseg_gpt.checkpoints.periods import rotary_periods
from mmseg_gpt.checks.missing import missing_checkpoint
from mmseg_gpt.convert import convert, describe
from mmseg_gpt.engine.config import find_config
from mmseg_gpt.lab.benchmark.serving import measure_growth
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.rotary import rotation_of
from mmseg_gpt.recipes.experiment import read_experiment

KINDS = {'plain': DINOV3, 'gated': GATED, 'no bias': NO_BIAS}
ARCH = dict(embed_dims=48, num_layers=3, num_heads=2, mlp_ratio=2)  # heads of 24: six periods
SIZES = [(64, 64), (32, 80), (48, 16), (112, 96)]


def double_vit(rounding: str = 'float32', **options) -> GatedPromptViT:
    """A ViT of random float64 weights, large enough for every part to matter."""
    vit = build(**{**DINOV3, **dict(arch=ARCH, patch_size=16, prompt=None, temperature=False, rotary=rounding),
                   **options}).double()
    for name, parameter in vit.named_parameters():
        parameter.data.normal_(std=0.3)
        if name.endswith('qkv.bias') and vit.blocks[0].attn.qkv.bias is not None:
            parameter.data.chunk(3)[1].zero_()
    return vit


def images_of(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64)


# --- The numbers of other libraries, in float64 ---


def timm_model(vit: GatedPromptViT, size: tuple[int, int], tmp_path: Path) -> torch.nn.Module:
    """timm's model with the weights of ``vit``, as the converter writes them."""
    timm = pytest.importorskip('timm')
    gated, has_bias = hasattr(vit.blocks[0].mlp, 'fc1_g'), vit.blocks[0].attn.qkv.bias is not None
    name = f'vit_small{"_plus" * gated}_patch16_dinov3{"_qkvb" * has_bias}'
    theirs = timm.create_model(name, num_classes=0, global_pool='token', img_size=size, embed_dim=48, depth=3,
                               num_heads=2, mlp_ratio=2).double().eval()
    path = save(our_own(vit.vit_state()), tmp_path / 'vit.pth')
    convert(path, tmp_path / 'theirs.safetensors', 'timm', force=True)
    theirs.load_state_dict(read_state_dict(tmp_path / 'theirs.safetensors'))  # strict
    theirs.rope.periods = rotary_periods(24, vit.rotary).double()
    return theirs


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('rounding', ['float32', 'bfloat16'])
def test_same_numbers_as_timm(kind, size, rounding, tmp_path):
    options = {**KINDS[kind], 'rotary': rounding}
    vit = double_vit(**options)
    theirs, images = timm_model(vit, size, tmp_path), images_of(size)
    torch.testing.assert_close(vit(images)[0], theirs(images), rtol=1e-10, atol=1e-10)
    maps = double_vit(**options, out_type='featmap', out_indices=(0, 2))
    maps.load_state_dict({k: v for k, v in vit.state_dict().items() if not k.startswith('norm.')})
    expected = theirs.forward_intermediates(images, indices=[0, 2], intermediates_only=True, norm=False)
    for actual, feature in zip(maps(images), expected, strict=True):
        torch.testing.assert_close(actual, feature, rtol=1e-10, atol=1e-10)


def transformers_model(vit: GatedPromptViT, tmp_path: Path) -> torch.nn.Module:
    """transformers' model with the weights of ``vit``, as the converter writes them."""
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    gated, has_bias = hasattr(vit.blocks[0].mlp, 'fc1_g'), vit.blocks[0].attn.qkv.bias is not None
    theirs = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, num_register_tokens=4,
        use_gated_mlp=gated, hidden_act='silu' if gated else 'gelu', query_bias=has_bias,
        value_bias=has_bias)).double().eval()
    path = save(our_own(vit.vit_state()), tmp_path / 'vit.pth')
    convert(path, tmp_path / 'theirs.safetensors', 'huggingface', force=True)
    theirs.load_state_dict(read_state_dict(tmp_path / 'theirs.safetensors'))  # strict
    theirs.rope_embeddings.inv_freq = 1 / rotary_periods(24, vit.rotary).double()
    return theirs


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', KINDS)
def test_same_numbers_as_transformers(kind, size, tmp_path, monkeypatch):
    """Of the places of patches, float32 there as here, angles are computed in float64, as everything else."""
    module = pytest.importorskip('transformers.models.dinov3_vit.modeling_dinov3_vit', exc_type=ImportError)
    places = module.get_patches_center_coordinates
    monkeypatch.setattr(module, 'get_patches_center_coordinates', lambda *args, **options: places(
        *args, **options).double())
    vit = double_vit(**KINDS[kind])
    theirs, images = transformers_model(vit, tmp_path), images_of(size)
    torch.testing.assert_close(vit(images)[0], theirs(images).last_hidden_state[:, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('arch, embed, gated', [('small', 384, False), ('small', 384, True), ('base', 768, False),
                                                ('large', 1024, False), ('huge_plus', 1280, True)])
def test_names_shapes_and_numbers_of_the_released_sizes(arch, embed, gated, tmp_path):
    """Of each size two blocks, in float64, from timm's model to ours."""
    timm = pytest.importorskip('timm')
    name = {('small', True): 'small_plus'}.get((arch, gated), arch)
    theirs = timm.create_model(f'vit_{name}_patch16_dinov3_qkvb', depth=2, num_classes=0, global_pool='token',
                               img_size=(32, 48)).double().eval()
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.1)
    from mmseg_gpt.models.vit import ARCHS
    vit = build(**DINOV3 | dict(rotary='float32', gated_mlp=gated, prompt=None, temperature=False, patch_size=16),
                arch={**ARCHS[arch], 'num_layers': 2}).double()
    load_vit(vit, save(theirs.state_dict(), tmp_path / 'vit.pth'))
    images = images_of((32, 48))
    theirs.rope.periods = rotary_periods(64, 'float32').double()
    torch.testing.assert_close(vit(images)[0], theirs(images), rtol=1e-10, atol=1e-10)
    assert vit.cls_token.shape[-1] == embed


# --- Rotary positions ---


def test_patches_are_turned_by_the_angles_of_the_definition():
    width, (rows, columns), first = 8, (2, 3), 5
    rotation = rotation_of((rows, columns), rotary_periods(width, 'float32').double(), first)
    x = torch.randn(1, 2, first + 6 + 3, width, dtype=torch.float64)
    actual = rotation.turned(x)
    expected = x.clone()
    for i in range(rows):
        for j in range(columns):
            token = first + i * columns + j
            places = (2 * (i + 0.5) / rows - 1, 2 * (j + 0.5) / columns - 1)
            for k in range(width // 2):
                axis, step = divmod(k, width // 4)
                angle = 2 * math.pi * places[axis] / 100**(4 * step / width)
                one, other = x[..., token, k], x[..., token, k + width // 2]
                expected[..., token, k] = one * math.cos(angle) - other * math.sin(angle)
                expected[..., token, k + width // 2] = other * math.cos(angle) + one * math.sin(angle)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(actual[:, :, :first], x[:, :, :first]) and torch.equal(actual[:, :, -3:], x[:, :, -3:])
    torch.testing.assert_close(actual.norm(dim=-1), x.norm(dim=-1))  # they are turned, and no longer or shorter
    place = x.clone()
    rotation.turn_in_place(place)
    assert torch.equal(place, actual)
    rotation.turn_in_place(place, back=True)
    torch.testing.assert_close(place, x)


def test_periods_are_those_of_the_official_files_or_exact():
    assert rotary_periods(64, 'float32').tolist() == pytest.approx([100**(j / 16) for j in range(16)], rel=1e-6)
    rounded = rotary_periods(64, 'bfloat16')
    assert torch.equal(rounded, rounded.bfloat16().float()) and not torch.equal(rounded, rotary_periods(64, 'float32'))


def plain_attention(vit: GatedPromptViT, block: int, x: torch.Tensor, tau: torch.Tensor, grid: tuple[int, int]
                    ) -> torch.Tensor:
    """Attention of a block, written out: (B, N, D) -> (B, N, D)."""
    attention = vit.blocks[block].attn
    q, k, v = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    rotation = vit.rotation(grid)
    scores = rotation.turned(q) @ rotation.turned(k).mT / q.shape[-1]**0.5 / tau
    return attention.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize('has_temperature', [True, False])
def test_gradients_of_prompts_and_temperatures(has_temperature):
    """Of the lean attention, which turns in place and back, against automatic differentiation of what it means."""
    vit = double_vit(prompt=dict(type='GatedPrompt', num_tokens=3, dropout=0.), temperature=has_temperature,
                     frozen=False, out_type='featmap')
    if has_temperature:
        vit.temperature.data.uniform_(0.5, 2)
    images = images_of((32, 48))
    out, = vit(images)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    actual = {name: p.grad.clone() for name, p in vit.named_parameters() if p.grad is not None}
    vit.zero_grad()

    x, grid = vit.embed(images)
    prompts = vit.prompt.first(0, 2)
    for i, block in enumerate(vit.blocks):
        tokens = torch.cat([x, prompts], dim=1)
        tau = vit.temperature[i] if has_temperature else torch.ones(())
        attended = tokens + block.ls1(plain_attention(vit, i, block.norm1(tokens), tau, grid))
        out = attended + block.ls2(block.mlp(block.norm2(attended)))
        x, after = out[:, :x.shape[1]], out[:, x.shape[1]:]
        prompts = vit.prompt.next(i, prompts, after)
    expected = x[:, vit.first_patch:].transpose(1, 2).unflatten(2, grid)
    (expected * weights).sum().backward()
    assert actual.keys() == {name for name, p in vit.named_parameters() if p.grad is not None}
    for name, parameter in vit.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(actual[name], parameter.grad, rtol=1e-9, atol=1e-9 * parameter.grad.abs().max())
    assert actual['prompt.tokens'].abs().max() > 1e-3
    assert not actual['blocks.1.attn.qkv.bias'].chunk(3)[1].any()  # keys have none


def test_gradients_of_prompts_are_those_of_timm(tmp_path):
    """Prompts have no position: timm's model gets them as further registers, which are not turned either."""
    vit = double_vit(prompt=dict(type='ShallowPrompt', num_tokens=3, dropout=0.))
    images = images_of((32, 80))
    theirs = timm_model(double_vit(), (32, 80), tmp_path)
    state = {k: v for k, v in vit.state_dict().items() if not k.startswith('prompt')}
    theirs = timm_model_like(theirs, state, tmp_path)
    prompts = vit.prompt.tokens.detach().clone().requires_grad_()
    theirs.reg_token = torch.nn.Parameter(torch.cat([vit.reg_token, prompts[None]], dim=1))
    theirs.num_prefix_tokens += 3
    for block in theirs.blocks:
        block.attn.num_prefix_tokens += 3
    out, expected = vit(images)[0], theirs(images)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(vit.prompt.tokens.grad, theirs.reg_token.grad[0, 4:], rtol=1e-10, atol=1e-10)


def timm_model_like(theirs: torch.nn.Module, state: State, tmp_path: Path) -> torch.nn.Module:
    """Loads other weights, by our names, into timm's model."""
    convert(save(our_own(state), tmp_path / 'vit.pth'), tmp_path / 'theirs.safetensors', 'timm', force=True)
    theirs.load_state_dict(read_state_dict(tmp_path / 'theirs.safetensors'))
    return theirs


@pytest.mark.parametrize('out_type', ['featmap', 'cls_token', 'mean_patch', 'mean_all'])
def test_any_image_size_and_the_same_with_and_without_gradients(out_type):
    vit = double_vit(prompt=dict(type='GatedPrompt', num_tokens=3), temperature=True, out_type=out_type)
    for size in ((64, 64), (40, 16), (31, 97)):
        images = images_of(size)
        out, = vit(images)
        assert out.shape == ((2, 48, -(-size[0] // 16), -(-size[1] // 16)) if out_type == 'featmap' else (2, 48))
        with torch.no_grad():
            torch.testing.assert_close(vit(images)[0], out, rtol=1e-12, atol=1e-12)
        assert vit.train()(images)[0].shape == out.shape
        vit.eval()


def test_the_place_of_a_patch_matters_and_img_size_does_not():
    vit = double_vit(out_type='mean_patch')
    images = images_of((64, 64))
    assert (vit(images)[0] - vit(images.roll(16, dims=2))[0]).abs().max() > 1e-3
    other = double_vit(out_type='mean_patch', img_size=160)
    other.load_state_dict(vit.state_dict())
    assert torch.equal(vit(images)[0], other(images)[0])


def test_recomputing_and_autocast_and_export():
    vit = double_vit(prompt=dict(type='GatedPrompt', num_tokens=3, dropout=0.), temperature=True, frozen=True).float()
    other = copy.deepcopy(vit)
    other.with_cp = True
    images = images_of((32, 48)).float()
    for each in (vit, other):
        each(images)[0].sum().backward()
    assert torch.equal(vit.prompt.tokens.grad, other.prompt.tokens.grad)
    with torch.autocast('cpu', torch.bfloat16):
        close = vit(images)[0]
    torch.testing.assert_close(close.float(), vit(images)[0], rtol=0.1, atol=0.2)
    traced = torch.jit.trace(vit, images)
    torch.testing.assert_close(traced(images)[0], vit(images)[0])
    vit.temperature = None  # which torch.export does not take yet
    exported = torch.export.export(vit, (images, )).module()
    torch.testing.assert_close(exported(images)[0], vit(images)[0])


@pytest.mark.parametrize('options, message', [
    (dict(rotary='half'), "rotary must be None, or what the periods are rounded to, one of .*got 'half'"),
    (dict(rotary=True), 'rotary must be None'),
    (dict(arch=dict(embed_dims=36, num_layers=3, num_heads=6)), 'multiple of 4'),
    (dict(qkv_bias='q'), "qkv_bias must be 'qkv', 'qv' or ''"),
])
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**{**DINOV3, **options})


def test_the_bias_of_keys_stays_unused_when_all_is_trained():
    vit = build(**DINOV3, frozen=False, prompt=None, temperature=False)
    images = torch.randn(1, 3, 32, 32)
    before = vit(images)[0]
    for block in vit.blocks:
        block.attn.qkv.bias.data.chunk(3)[1].fill_(7)
    assert torch.equal(vit(images)[0], before)
    vit(images)[0].sum().backward()
    assert not vit.blocks[0].attn.qkv.bias.grad.chunk(3)[1].any()
    assert vit.blocks[0].attn.qkv.bias.grad.chunk(3)[0].any()


# --- Files ---


@pytest.mark.parametrize('layout', DINOV3_LAYOUTS)
def test_every_layout_fills_every_weight(layout, tmp_path, log):
    make, options = DINOV3_LAYOUTS[layout]
    state, vit = random_vit(**options), build(**options)
    untouched = copy.deepcopy(vit.state_dict())
    load_vit(vit, save(make(state), tmp_path / 'vit.pth'))
    assert_filled(vit, state, untouched)
    if 'ours' not in layout:
        assert any('read as: DINOv3' in record.getMessage() for record in log)


def test_the_names_and_number_of_weights_are_those_of_the_official_files():
    arch = dict(embed_dims=32, num_layers=12, num_heads=2, mlp_ratio=4)
    for options, depth, number in ((DINOV3, 12, 188), (GATED, 12, 212), (DINOV3, 24, 368)):
        assert len(dinov3(random_vit(**options, arch={**arch, 'num_layers': depth}))) == number


def test_timms_files_without_biases_fill_them_with_0(tmp_path):
    """In all released DINOv3 they are 0."""
    state = random_vit(**NO_BIAS)
    path = save(timm_dinov3(state), tmp_path / 'vit.pth')
    vit = build(**GATED)
    load_vit(vit, path)
    zeros = {name: torch.zeros(48) for name in vit.vit_state() if name.endswith('qkv.bias')}
    assert_filled(vit, {**state, **zeros}, vit.state_dict())
    load_vit(build(**NO_BIAS), path)
    some = timm_dinov3(random_vit(**GATED))
    assert_refused(build(**GATED), save(without(some, 'blocks.0.attn.q_bias', 'blocks.0.attn.v_bias'), path),
                   r'missing \(1\): blocks.0.attn.qkv.bias')
    assert_refused(build(**NO_BIAS), save(some, path), "qkv_bias='qv'(?s:.*)unexpected")
    assert_refused(build(**GATED), save(dinov3(state), path), r"qkv_bias=''(?s:.*)missing \(3\)")


@pytest.mark.parametrize('here, there, message', [
    ({}, DINOV3, r"rotary positions\).*num_registers=4.*'bfloat16', qkv_bias='qv'(?s:.*)missing \(1\): pos_embed"),
    (DINOV3, GATED, r'gated_mlp=True(?s:.*)missing \(6\): blocks.0.mlp.fc1.weight'),
    (GATED, DINOV3, 'gated_mlp=False'),
])
def test_the_option_to_set_is_named(here, there, message, tmp_path):
    assert_refused(build(**here), save(dinov3(random_vit(**there)), tmp_path / 'vit.pth'), message)


@pytest.mark.parametrize('make', [dinov3, timm_dinov3, hf_dinov3])
def test_the_epsilon_of_other_vits_is_refused(make, tmp_path):
    path = save(make(random_vit(**DINOV3)), tmp_path / 'vit.pth')
    assert_refused(build(**{**DINOV3, 'norm_eps': 1e-6}), path, r'norm_eps \(DINOv3 1e-05, config 1e-06\)')


def test_a_learned_position_embedding_does_not_fill_rotary_positions(tmp_path):
    assert_refused(build(**DINOV3), save(random_vit(), tmp_path / 'vit.pth'), r'unexpected \(1\): pos_embed')


def test_the_file_says_to_what_periods_are_rounded_and_how_many_heads_there_are(tmp_path):
    arch = dict(embed_dims=64, num_layers=2, num_heads=2, mlp_ratio=1)
    state, path = random_vit(**DINOV3, arch=arch), tmp_path / 'vit.pth'
    file = {k: v for k, v in dinov3(state).items() if k != 'mask_token'}
    for rounding, other in (('bfloat16', 'float32'), ('float32', 'bfloat16')):
        save({**file, 'rope_embed.periods': rotary_periods(32, rounding)}, path)
        load_vit(build(**{**DINOV3, 'rotary': rounding}, arch=arch), path)
        assert_refused(build(**{**DINOV3, 'rotary': other}, arch=arch), path,
                       rf"rotary \(file {rounding}, config {other}\): set it to '{rounding}'")
        assert_refused(build(**{**DINOV3, 'rotary': rounding}, arch={**arch, 'num_heads': 4}), path,
                       r'num_heads \(file 2, config 4\)')
        said = describe(path)
        assert f"rotary='{rounding}', gated_mlp=False, qkv_bias='qv'" in said and 'norm_eps=1e-5' in said
        assert 'num_heads=2' in said and 'any, by rotary positions' in said
    for wrong in (torch.ones(8), rotary_periods(32, 'float32') * 2, torch.ones(8, 1), torch.ones(8, dtype=torch.int8)):
        assert_refused(build(**DINOV3, arch=arch), save({**file, 'rope_embed.periods': wrong}, path),
                       'its rotary periods are not')


@pytest.mark.parametrize('change', [
    lambda file: {k: v for k, v in file.items() if k != 'blocks.1.attn.qkv.bias_mask'},
    lambda file: {**file, 'blocks.1.attn.qkv.bias_mask': torch.ones(48)},
    lambda file: {**file, 'blocks.1.attn.qkv.bias_mask': torch.ones(3)},
])
def test_masks_that_are_not_those_of_keys_are_refused(change, tmp_path):
    path = save(change(dinov3(random_vit(**DINOV3))), tmp_path / 'vit.pth')
    assert_refused(build(**DINOV3), path, 'have a mask|bias_mask')


@pytest.mark.parametrize('target', ['timm', 'dinov3', 'huggingface', 'mmseg_gpt'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_layout_is_written_and_read(kind, target, tmp_path):
    options = {**KINDS[kind], 'arch': dict(embed_dims=384, num_layers=2, num_heads=6, mlp_ratio=1)}
    state = random_vit(**options)
    convert(save(our_own(state), tmp_path / 'vit.pth'), tmp_path / 'theirs.safetensors', target)
    vit = build(**options)
    load_vit(vit, tmp_path / 'theirs.safetensors')
    assert_filled(vit, state, vit.state_dict())
    written = read_state_dict(tmp_path / 'theirs.safetensors')
    expected = {'timm': timm_dinov3, 'dinov3': dinov3, 'huggingface': hf_dinov3, 'mmseg_gpt': lambda s: prefixed(
        s, 'backbone.')}[target](state)
    assert written.keys() == {name for name in expected if name != 'head.weight'}


def test_layouts_without_a_place_for_it_are_refused(tmp_path):
    path = save(dinov3(random_vit(**DINOV3)), tmp_path / 'vit.pth')
    for target in ('mmpretrain', 'mmsegmentation'):
        with pytest.raises(CheckpointError, match=f'{target} has no place for reg_token'):
            convert(path, tmp_path / 'x.pth', target)
    save(random_vit(), path)
    for target in ('dinov3', 'huggingface'):
        with pytest.raises(CheckpointError, match='this layout is for DINOv3 alone'):
            convert(path, tmp_path / 'x.pth', target)


def test_list_names_the_architecture(tmp_path):
    from mmseg_gpt.models.vit import ARCHS
    with torch.device('meta'):
        vit = GatedPromptViT('huge_plus', **{**GATED, 'norm_eps': 1e-5}, out_type='cls_token')
    state = {name: torch.zeros(()).expand(p.shape) for name, p in vit.vit_state().items()}
    path = save(timm_dinov3(state), tmp_path / 'vit.pth')
    assert "arch='huge_plus'" in describe(path) and 'a released ViT-H has 20' in describe(path)
    assert ARCHS['huge_plus']['num_heads'] == 20


# --- Adapters, analysis ---


def test_adapters_alone_are_filled_up(tmp_path):
    state = random_vit(**DINOV3)
    init_cfg = dict(type='PretrainedViT', checkpoint=str(save(dinov3(state), tmp_path / 'vit.pth')))
    vit, other = build(**DINOV3, init_cfg=init_cfg), build(**DINOV3, init_cfg=init_cfg, img_size=64)
    vit.init_weights()
    frozen = frozen_source(vit)
    assert frozen['pos_embed'] is None
    adapters = {name: value for name, value in vit.state_dict().items() if name not in state}
    load_model_state(other, dict(state_dict=adapters, meta=dict(frozen=frozen)), 'adapters.pth')
    assert_filled(other, state, vit.state_dict())


def test_tasks_on_one_dinov3_share_it(tmp_path):
    pytest.importorskip('mmpretrain')
    configs = {}
    for name, experiment in (('birds', 'cls_gpt_dinov3-splus_cub'), ('cars', 'cls_vpt-deep_dinov3-splus_cars')):
        configs[name] = cfg = read_experiment(experiment)
        cfg.model.backbone.update(arch=dict(embed_dims=24, num_layers=12, num_heads=2, mlp_ratio=2), img_size=64)
        cfg.model.head.update(in_channels=24, num_classes=3, topk=(1, ))
        cfg.model.neck.input_features = 24
        cfg.data_preprocessor.num_classes = 3
    first, second = measure_growth(configs, tmp_path)
    assert second.added == 4 * (12 * configs['cars'].model.backbone.prompt.num_tokens * 24 + 3 * (24 + 1) + 6
                               + 2 * 24) + 8  # mean, variance and count of the batch norm
    assert second.separate > 1.9 * first.separate


def test_attention_maps_are_those_of_the_model():
    vit = double_vit(prompt=dict(type='GatedPrompt', num_tokens=3), temperature=True)
    vit.temperature.data.uniform_(0.5, 2)
    seen = {}
    vit.blocks[1].attn.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0], out=output))
    weights = visit_attention(vit, images_of((32, 48)), [1], lambda block, found, tokens: found)[1]
    attention = vit.blocks[1].attn
    value = attention.qkv(seen['x']).chunk(3, dim=-1)[2].unflatten(2, (2, -1)).transpose(1, 2)
    expected = attention.proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(seen['out'], expected, rtol=1e-10, atol=1e-10)


def test_the_encoder_of_the_analysis_gives_the_tokens_of_the_model():
    vit = double_vit(out_type='featmap')
    images = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    encoder = Encoder(vit, [0., 0., 0.], [255., 255., 255.]).double()
    tokens = encoder(images, 3)
    torch.testing.assert_close(tokens[:, 5:].transpose(1, 2).unflatten(2, (2, 3)), vit(images)[0])
    assert encoder.identity()['rotary'] == 'float32'
    assert F.cosine_similarity(tokens, encoder(images, 1), dim=-1).min() < 0.999


# --- The configs ---

FORM = 'https://ai.meta.com/'
WIDTHS = {'s': (384, 12, 6), 'splus': (384, 12, 6), 'b': (768, 12, 12), 'l': (1024, 24, 16), 'hplus': (1280, 32, 20),
          'sat_l': (1024, 24, 16)}
MILLIONS = {'s': 21.6, 'splus': 28.7, 'b': 85.7, 'l': 303.2, 'hplus': 840.6, 'sat_l': 303.2}


def test_there_is_a_config_of_each_size():
    assert {f'dinov3_{size}' for size in WIDTHS} == {name for name in BACKBONES if name.startswith('dinov3')}


@pytest.mark.parametrize('size', WIDTHS)
def test_one_line_makes_the_backbone_dinov3(size, tmp_path):
    cfg = find_config(str(swapped(tmp_path, f'dinov3_{size}')))
    with torch.device('meta'):
        vit = build_model(cfg).backbone
    assert (vit.arch['embed_dims'], vit.arch['num_layers'], vit.arch['num_heads']) == WIDTHS[size]
    assert vit.pos_embed is None and vit.rotary == 'bfloat16' and vit.blocks[0].norm1.eps == 1e-5
    assert ('blocks.0.mlp.fc1_g.weight' in vit.vit_state()) == (size in ('splus', 'hplus'))
    page = (CONFIGS.parent / 'docs/vits.md').read_text()
    row, = (line for line in page.splitlines() if line.startswith(f'| `dinov3_{size}`'))
    parameters = sum(p.numel() for p in vit.vit_state().values())
    norm = 2 * WIDTHS[size][0]
    assert f'| {(parameters + norm) / 1e6:.1f} M |' in row and f'| {MILLIONS[size]} M |' in row
    assert Path(cfg.model.backbone.init_cfg.checkpoint).name in row
    assert address_of(cfg.model.backbone.init_cfg.checkpoint).startswith(FORM)
    mean = [round(255 * x, 3) for x in (0.430, 0.411, 0.296)] if size == 'sat_l' else [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.mean == mean
    classifier = read_experiment(f'cls_gpt_{experiment_name(size)}_cub')
    assert classifier.data_preprocessor.mean == mean
    with torch.device('meta'):
        vit = GatedPromptViT(**{k: v for k, v in classifier.model.backbone.items() if k not in ('type', 'init_cfg')})
    assert vit.norm is not None and vit.rotary == 'bfloat16'


def experiment_name(size: str) -> str:
    """The name of a ViT in experiments."""
    return f'dinov3_{size}'.removesuffix('_b').replace('_', '-')


def test_a_missing_file_says_how_it_is_sent():
    said, = missing_checkpoint(dict(checkpoint='pretrained/dinov3_vits16_pretrain_lvd1689m-08c60483.pth'))
    assert f'get:        {FORM}' in said and 'by e-mail; DINOv3 License' in said

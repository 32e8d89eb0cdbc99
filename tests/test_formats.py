"""Every layout with its names as released, the numbers of timm's models, and what is said of a file that misfits."""

import copy
import json
import re

import pytest
import torch
from torch import Tensor
from vit_files import (
    DINOV2_LAYOUTS,
    REAL_ARCH,
    REGISTERS,
    TORCH_LAYOUTS,
    State,
    assert_filled,
    assert_refused,
    build,
    dinov2,
    our_own,
    prefixed,
    random_vit,
    renamed,
    save,
    shrunk,
    without,
)

from mmseg_gpt.checkpoints import CheckpointError, load_vit
from mmseg_gpt.checkpoints.formats import to_timm
from mmseg_gpt.models import GatedPromptViT


@pytest.mark.parametrize('layout', DINOV2_LAYOUTS)
def test_every_layout_with_layer_scale_fills_every_weight(layout, tmp_path):
    make, options = DINOV2_LAYOUTS[layout]
    state, vit = random_vit(**options), build(**options)
    untouched = copy.deepcopy(vit.state_dict())
    load_vit(vit, save(make(state), tmp_path / 'vit.bin'))
    assert_filled(vit, state, untouched)


def test_of_dino_the_teacher_is_taken_and_a_student_alone_too(tmp_path):
    state, vit = random_vit(), build()
    content = TORCH_LAYOUTS['DINO training'](state)
    student = content.pop('student')
    load_vit(vit, save(content, tmp_path / 'teacher.pth'))
    assert_filled(vit, state, vit.state_dict())
    load_vit(vit, save(dict(state_dict=student), tmp_path / 'student.pth'))
    assert_filled(vit, {k.removeprefix('module.backbone.'): v for k, v in student.items()}, vit.state_dict())


# --- Names and shapes of released files: DINO's full file, DINOv2, Hugging Face ---


def hf_name(name: str) -> str:
    """Hugging Face's name of a weight that is there as it is in timm, ViT and Dinov2 alike."""
    for old, new in ((r'^blocks', 'encoder.layer'), ('attn.proj', 'attention.output.dense'), (r'^norm', 'layernorm'),
                     (r'^patch_embed.proj', 'embeddings.patch_embeddings.projection'), (
                         r'^pos_embed', 'embeddings.position_embeddings'), (r'^cls_token', 'embeddings.cls_token')):
        name = re.sub(old, new, name)
    return name


@pytest.mark.parametrize('key, options', [('vitb14', dict(layer_scale=True)), ('vitb14_reg4', REGISTERS)])
def test_names_of_the_released_dinov2(layouts_folder, key, options, tmp_path):
    state = shrunk(layouts_folder, 'dinov2.json', key)
    vit = build(arch=REAL_ARCH, patch_size=14, img_size=518, **options)
    load_vit(vit, save(state, tmp_path / 'vit.pth'))
    expected = {name: state[name.replace('reg_token', 'register_tokens')] for name in vit.vit_state()}
    assert_filled(vit, expected, vit.state_dict())
    assert len(expected) == len(state) - 1  # all but the mask token


@pytest.mark.parametrize('key, prefix, patch, options', [
    ('vit_image_classification', 'vit.', 16, {}), ('vit_mae_for_pretraining', 'vit.', 16, {}),
    ('dinov2_base', '', 14, dict(layer_scale=True))])
def test_names_of_the_released_hugging_face_files(layouts_folder, key, prefix, patch, options, tmp_path):
    state = shrunk(layouts_folder, 'huggingface.json', key)
    vit = build(arch=REAL_ARCH, patch_size=patch, img_size=518 if patch == 14 else 224, **options)
    load_vit(vit, save(state, tmp_path / 'pytorch_model.bin'))
    parts = {'attn.qkv': None, 'mlp.fc1': 'intermediate.dense', 'mlp.fc2': 'output.dense',
             'norm1': 'layernorm_before', 'norm2': 'layernorm_after'}
    for name, value in vit.vit_state().items():
        found = re.fullmatch(r'blocks\.(\d+)\.(.+)\.(weight|bias|gamma)', name)
        layer = found and f'{prefix}encoder.layer.{found[1]}.'
        if found and found[2] == 'attn.qkv':
            theirs = torch.cat([state[f'{layer}attention.attention.{part}.{found[3]}'] for part in (
                'query', 'key', 'value')])
        elif found and found[3] == 'gamma':
            theirs = state[f'{layer}layer_scale{found[2][-1]}.lambda1']
        elif found and found[2] in parts and prefix:
            theirs = state[f'{layer}{parts[found[2]]}.{found[3]}']
        else:
            theirs = state[prefix + hf_name(name)]
        assert torch.equal(value, theirs), name


def test_names_of_the_full_dino_file(layouts_folder, tmp_path):
    state = shrunk(layouts_folder, 'dino.json', 'backbone_file')
    assert 'teacher: backbone.X and head.X' in json.loads((layouts_folder / 'dino.json').read_text())['wrapper']
    head = {'head.mlp.0.weight': torch.randn(8, 24), 'head.last_layer.weight_v': torch.randn(8, 8)}
    content = dict(student={}, teacher={**prefixed(state, 'backbone.'), **head}, epoch=100)
    vit = build(arch=REAL_ARCH, patch_size=16, img_size=224)
    load_vit(vit, save(content, tmp_path / 'vit.pth'))
    assert_filled(vit, state, vit.state_dict())


def test_the_small_vit_of_moco_v3_as_released(layouts_folder, tmp_path):
    # Two blocks of it are listed, unshrunk: it is the width of 384 that tells its 12 heads.
    shapes = json.loads((layouts_folder / 'moco.json').read_text())['vit_small_base_encoder']
    state = prefixed({name: torch.randn(shape) for name, shape in shapes.items()}, 'module.base_encoder.')
    blocks = len({name.split('.')[1] for name in shapes if name.startswith('blocks.')})
    arch = dict(embed_dims=384, num_layers=blocks, num_heads=12, mlp_ratio=4)
    options = dict(patch_size=16, img_size=224, prompt=None)
    path = save(dict(state_dict=state), tmp_path / 'vit.pth.tar')
    load_vit(build(arch=arch, **options), path)
    assert_refused(build(arch={**arch, 'num_heads': 6}, **options), path, r'num_heads \(file 12, config 6\)')


# --- The numbers of timm ---

TIMM = {
    'vit_base_patch16_224': {},
    'vit_base_patch14_dinov2': dict(layer_scale=True),
    'vit_base_patch14_reg4_dinov2': REGISTERS,
}


@pytest.mark.parametrize('is_official', [False, True], ids=['timm file', 'official file'])
@pytest.mark.parametrize('name', TIMM)
def test_same_numbers_as_timm_in_float64(name, is_official, tmp_path):
    timm = pytest.importorskip('timm')
    patch = 14 if '14' in name else 16
    theirs = timm.create_model(name, pretrained=False, img_size=4 * patch, embed_dim=48, depth=3, num_heads=4,
                               num_classes=0, global_pool='token').double().eval()
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.3)
    file = copy.deepcopy(theirs.state_dict())
    if is_official:  # as Meta has it: there CLS has a position of its own, which timm adds to the token
        file = official(file)
        if 'register_tokens' in file:
            theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(dict(file), theirs))
    arch = dict(embed_dims=48, num_layers=3, num_heads=4, mlp_ratio=4)
    options = dict(arch=arch, img_size=4 * patch, patch_size=patch, prompt=None, temperature=False, **TIMM[name])
    ours, patches = build(**options).double(), build(**options, out_type='featmap', out_indices=(0, 2)).double()
    path = save(file, tmp_path / 'vit.pth')
    load_vit(ours, path)
    load_vit(patches, path)
    images = torch.randn(2, 3, 4 * patch, 4 * patch, dtype=torch.float64)
    torch.testing.assert_close(ours(images)[0], theirs(images), rtol=1e-12, atol=1e-12)
    expected = theirs.forward_intermediates(images, indices=[0, 2], intermediates_only=True)  # registers are dropped
    for actual, feature in zip(patches(images), expected, strict=True):
        torch.testing.assert_close(actual, feature, rtol=1e-12, atol=1e-12 * feature.abs().max().item())


def official(file: State) -> State:
    """Weights by the official names, DINOv2's if there is LayerScale."""
    if 'blocks.0.ls1.gamma' not in file:
        return dict(model=file)
    file = {**file, 'mask_token': torch.zeros(1, 48)}
    if 'reg_token' in file:
        file['register_tokens'] = file.pop('reg_token')
        cls = torch.randn(1, 1, 48, dtype=torch.float64)
        file['pos_embed'] = torch.cat([cls, file['pos_embed']], dim=1)
    return file


def test_registers_of_timm_come_without_a_position_of_cls(tmp_path):
    state = random_vit(**REGISTERS)
    state['pos_embed'][:, 0] = 0
    vit = build(**REGISTERS)
    file = {**state, 'pos_embed': state['pos_embed'][:, 1:]}
    load_vit(vit, save(file, tmp_path / 'vit.pth'))
    assert_filled(vit, state, vit.state_dict())
    assert_refused(vit, save(state, tmp_path / 'vit.pth'), '17 entries, which is not a square grid without CLS')
    load_vit(vit, save(our_own(state), tmp_path / 'ours.pth'))  # where the names say whose they are, CLS has one


# --- What is said of a file that does not fit ---


@pytest.mark.parametrize('here, there, message', [
    ({}, dict(layer_scale=True), r'set model.backbone: layer_scale=True(?s:.*)unexpected \(6\): blocks.0.ls1.gamma'),
    (dict(layer_scale=True), {}, r'set model.backbone: layer_scale=False(?s:.*)missing \(6\): blocks.0.ls1.gamma'),
    (dict(layer_scale=True), REGISTERS, r'patch 8, LayerScale, 4 registers\), .*set model.backbone: num_registers=4'),
    (REGISTERS, dict(layer_scale=True), r'set model.backbone: num_registers=0(?s:.*)missing \(1\): reg_token'),
    (REGISTERS, dict(layer_scale=True, num_registers=2), r'num_registers=2(?s:.*)misshapen \(1\): reg_token'),
    ({}, dict(layer_scale=True, patch_size=4, img_size=16), r'set model.backbone: patch_size=4, layer_scale=True'),
])
def test_the_option_to_set_is_named(here, there, message, tmp_path):
    assert_refused(build(**here), save(dinov2(random_vit(**there)), tmp_path / 'vit.pth'), message)


def test_one_error_names_everything_that_is_wrong(tmp_path):
    state = without(random_vit(layer_scale=True), 'norm.bias')
    state |= {'pos_embed': state['pos_embed'][:, 1:], 'blocks.1.mlp.fc1.weight': torch.zeros(3, 3), 'x': torch.ones(1),
              'norm.weight': torch.full((16, ), torch.nan), 'cls_token': state['cls_token'].int()}
    assert_refused(build(), save(state, tmp_path / 'vit.pth'), (
        r'read as: timm names(?s:.*)layer_scale=True(?s:.*)pos_embed has 16 entries(?s:.*)missing \(1\): norm.bias'
        r'(?s:.*)unexpected \(7\)(?s:.*)misshapen \(2\): pos_embed(?s:.*)fc1.weight(?s:.*)type \(1\): cls_token'
        r'(?s:.*)not finite \(1\): norm.weight'))


@pytest.mark.parametrize('make', [
    lambda s: renamed(s, (r'mlp\.fc1', 'mlp.w12'), (r'mlp\.fc2', 'mlp.w3')),  # official
    lambda s: {k: v[:, :v.shape[1] // 2] if k.endswith('fc2.weight') else v for k, v in s.items()},  # timm, packed
], ids=['DINOv2 giant', 'timm giant'])
def test_swiglu_is_refused_saying_so(make, tmp_path):
    path = save(make(random_vit(layer_scale=True)), tmp_path / 'vit.pth')
    assert_refused(build(layer_scale=True), path, 'SwiGLU.*ViT-S, ViT-B or ViT-L')


@pytest.mark.parametrize('layout, extra', [
    ('MoCo v3 pretraining', 'module.base_decoder.x'), ('MoCo v3 linear probe', 'predictor.weight'),
    ('mmsegmentation', 'classifier.weight'), ('mmpretrain', 'cls_token'), ('ours', 'blocks.0.norm1.weight'),
    ('ours', 'backbone.head.weight'), ('DINO training', 'dino_head.x'), ('Hugging Face classifier', 'vit.decoder.x'),
    ('Hugging Face MAE', 'encoder.layer.0.norm1.weight'), ('MAE pretraining', 'head.weight'),
    ('MAE encoder', 'mask_token_'), ('timm classifier', 'decoder_embed.bias'), ('timm classifier', 'head_dist.weight'),
])
def test_only_what_a_layout_is_known_to_have_may_be_left_over(layout, extra, tmp_path):
    content = TORCH_LAYOUTS[layout](random_vit())
    inner = next((content[wrapper] for wrapper in ('model', 'state_dict', 'teacher') if wrapper in content), content)
    load_vit(build(), save(content, tmp_path / 'vit.pth'))
    inner[extra] = torch.ones(16)
    last = re.escape(extra.split('.')[-1])
    assert_refused(build(), save(content, tmp_path / 'vit.pth'), rf'unexpected \(1\): .*{last}')


def test_query_key_and_value_of_two_types_are_not_joined():
    state = TORCH_LAYOUTS['Hugging Face ViT'](random_vit())
    name = 'encoder.layer.1.attention.attention.key.bias'
    for value in (state[name].int(), state[name].half(), state[name][:3], torch.tensor(1.)):
        with pytest.raises(ValueError, match=r'blocks\.1\.attn\.query\.bias: query, key and value differ'):
            to_timm({**state, name: value})
    assert 'blocks.1.attn.key.weight' in to_timm(without(state, name.replace('key.bias', 'query.weight')))[1]


def test_a_block_in_two_chunks_is_refused(tmp_path):
    state = DINOV2_LAYOUTS['DINOv2 in chunks'][0](random_vit(**REGISTERS))
    state['blocks.1.1.norm1.bias'] = state.pop('blocks.0.1.norm1.bias')
    assert_refused(build(**REGISTERS), save(state, tmp_path / 'vit.pth'), 'in two chunks')


def odd_tensors() -> dict[str, Tensor]:
    """Tensors without plain numbers in them, each of the shape of a norm's weight."""
    return {'sparse': torch.randn(16).to_sparse(), 'meta': torch.ones(16, device='meta'),
            'quantized': torch.quantize_per_tensor(torch.randn(16), 0.1, 0, torch.qint8)}


@pytest.mark.parametrize('kind', odd_tensors())
def test_tensors_that_are_not_plain_numbers_are_refused(kind, tmp_path):
    state = {**random_vit(), 'norm.weight': odd_tensors()[kind]}
    assert_refused(build(), save(state, tmp_path / 'vit.pth'), r'not plain arrays of numbers: norm\.weight')
    vit = build()
    with pytest.raises(CheckpointError, match=r'not of its type \(1\): norm\.weight'):
        vit.load_state_dict({**vit.state_dict(), 'norm.weight': odd_tensors()[kind]})


def test_a_view_that_claims_to_be_huge_is_not_looked_at(tmp_path):
    state = {**random_vit(), 'norm.weight': torch.ones(1).expand(2**40)}
    path = save(state, tmp_path / 'vit.pth')
    assert path.stat().st_size < 100_000
    assert_refused(build(), path, r'misshapen \(1\): norm.weight \(file \(1099511627776,\)')


@pytest.mark.parametrize('name', TIMM)
def test_names_and_shapes_are_those_of_timms_released_models(name):
    timm = pytest.importorskip('timm')
    theirs = timm.create_model(name, num_classes=0, depth=1)
    embed, arch = theirs.patch_embed, dict(embed_dims=768, num_layers=1, num_heads=12, mlp_ratio=4)
    with torch.device('meta'):
        ours = GatedPromptViT(arch, img_size=embed.img_size[0], patch_size=embed.patch_size[0], out_type='cls_token',
                              **TIMM[name])
    expected = {k: v.shape for k, v in theirs.state_dict().items()}
    if 'reg4' in name:
        expected['pos_embed'] = (1, 1 + expected['pos_embed'][1], 768)
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected

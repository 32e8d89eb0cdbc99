"""Small checkpoints of every layout, made from timm's names by the inverse of what the loader does."""

import argparse
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmseg_gpt.checkpoints import CheckpointError, load_vit
from mmseg_gpt.models import GatedPromptViT

State = dict[str, Tensor]
ARCH = dict(embed_dims=16, num_layers=3, num_heads=4, mlp_ratio=4)


def build(**options) -> GatedPromptViT:
    return GatedPromptViT(**{**dict(arch=ARCH, img_size=32, patch_size=8, out_type='cls_token', temperature=True,
                                    prompt=dict(type='GatedPrompt', num_tokens=2)), **options}).eval()


def random_vit(**options) -> State:
    """Random weights by timm's names, as a file would hold them."""
    state = {name: torch.randn(p.shape) for name, p in build(**options).vit_state().items()}
    if options.get('qkv_bias') == 'qv':
        for name in state:
            if name.endswith('qkv.bias'):
                state[name].chunk(3)[1].zero_()
    return state


def assert_filled(vit: GatedPromptViT, expected: State, untouched: State) -> None:
    """All ViT weights are those of ``expected``, and the adapters are those of ``untouched``."""
    for name, value in vit.state_dict().items():
        if name in vit.vit_state():
            torch.testing.assert_close(value, expected[name].to(value.dtype), rtol=0, atol=0)
        else:
            assert torch.equal(value, untouched[name])


def assert_refused(vit: GatedPromptViT, path: Path, message: str, error: type[Exception] = CheckpointError) -> None:
    """Loading raises, names the file and matches ``message``, and changes nothing."""
    before = copy.deepcopy(vit.state_dict())
    with pytest.raises(error, match=message) as raised:
        load_vit(vit, path)
    assert path.name in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def renamed(state: State, *renames: tuple[str, str]) -> State:
    """Replaces each pattern in the names."""
    result = {}
    for name, value in state.items():
        for pattern, new in renames:
            name = re.sub(pattern, new, name)
        result[name] = value
    return result


def to_openmmlab(state: State, attention: tuple[tuple[str, str], ...] = ()) -> State:
    return renamed(state, *attention, (r'^blocks\.', 'layers.'), (r'\bnorm1\b', 'ln1'), (r'\bnorm2\b', 'ln2'),
                   (r'mlp\.fc1', 'ffn.layers.0.0'), (r'mlp\.fc2', 'ffn.layers.1'), (r'^norm\b', 'ln1'),
                   (r'patch_embed\.proj\b', 'patch_embed.projection'))


MMSEG_ATTENTION = ((r'attn\.qkv\.', 'attn.attn.in_proj_'), (r'attn\.proj\.', 'attn.attn.out_proj.'))


def mae_pretraining(state: State) -> dict:
    model = {**state, 'mask_token': torch.randn(1, 1, 8), 'decoder_pos_embed': torch.randn(1, 17, 8),
             'decoder_embed.weight': torch.randn(8, 16), 'decoder_blocks.0.norm1.weight': torch.randn(8)}
    return dict(model=model, optimizer=dict(state={}, param_groups=[dict(lr=0.1)]), epoch=799, scaler={},
                args=argparse.Namespace(model='mae_vit_tiny', blr=1.5e-4))


def moco_pretraining(state: State) -> dict:
    head = {'head.0.weight': torch.randn(8, 16), 'head.1.running_var': torch.rand(8),
            'head.1.num_batches_tracked': torch.tensor(3)}
    momentum = {name: torch.randn_like(value) for name, value in state.items()}
    return dict(epoch=300, arch='vit_tiny', state_dict={
        **prefixed({**momentum, **head}, 'module.momentum_encoder.'),
        **prefixed({**state, **head}, 'module.base_encoder.'), 'module.predictor.0.weight': torch.randn(8, 8)})


def moco_linear_probe(state: State) -> dict:
    head = {'head.weight': torch.randn(10, 16), 'head.bias': torch.randn(10)}
    return dict(epoch=90, arch='vit_tiny', best_acc1=torch.tensor(76.7),
                state_dict=prefixed({**state, **head}, 'module.'))


def moco_positions(side: int, width: int) -> Tensor:
    """MoCo v3's fixed position embedding (1, 1 + side**2, width), of which the rows vary in its first half."""
    result = np.zeros((1, 1 + side**2, width), dtype=np.float32)
    for row, column, i in np.ndindex(side, side, width // 4):
        for part, position in enumerate((row, column)):
            angle = position / 10000**(i / (width // 4))
            result[0, 1 + row * side + column, part * width // 2 + i] = np.sin(angle)
            result[0, 1 + row * side + column, part * width // 2 + width // 4 + i] = np.cos(angle)
    return torch.from_numpy(result)


def mmpretrain_pretraining(state: State) -> dict:
    neck = {'neck.mask_token': torch.randn(1, 1, 8), 'head.layers.head.weight': torch.randn(10, 16)}
    return dict(meta=dict(epoch=3), state_dict={**prefixed(to_openmmlab(state), 'backbone.'), **neck})


def mmseg_segmentor(state: State) -> dict:
    head = {'decode_head.conv_seg.weight': torch.randn(5, 16, 1, 1)}
    return dict(meta={}, state_dict={**prefixed(to_openmmlab(state, MMSEG_ATTENTION), 'backbone.'), **head})


def our_own(state: State) -> dict:
    others = {'backbone.prompt.tokens': torch.randn(2, 16), 'backbone.prompt.gate_prior': torch.randn(2),
              'backbone.temperature': torch.rand(3), 'decode_head.conv_seg.weight': torch.randn(5, 16, 1, 1)}
    return dict(meta=dict(iter=7), state_dict={**prefixed(state, 'backbone.'), **others})


TORCH_LAYOUTS: dict[str, Callable[[State], dict]] = {
    'MAE pretraining': mae_pretraining,
    'MAE encoder': lambda state: dict(model=state),
    'MoCo v3 pretraining': moco_pretraining,
    'MoCo v3 linear probe': moco_linear_probe,
    'timm classifier': lambda state: {**state, 'head.weight': torch.randn(10, 16), 'head.bias': torch.randn(10)},
    'DINO backbone': dict,
    'mmpretrain': mmpretrain_pretraining,
    'mmpretrain backbone': to_openmmlab,
    'mmsegmentation': mmseg_segmentor,
    'ours': our_own,
}


# --- DINO, DINOv2 and Hugging Face: LayerScale, registers, separate query, key and value ---


def dino_training(state: State) -> dict:
    head = {'mlp.0.weight': torch.randn(8, 16), 'last_layer.weight_g': torch.randn(10, 1)}
    student = {name: torch.randn_like(value) for name, value in state.items()}
    return dict(student={**prefixed(student, 'module.backbone.'), **prefixed(head, 'module.head.')},
                teacher={**prefixed(state, 'backbone.'), **prefixed(head, 'head.')},
                optimizer=dict(state={}, param_groups=[]), epoch=100, args=argparse.Namespace(arch='vit_tiny'),
                dino_loss=dict(center=torch.zeros(1, 10)))


def dinov2(state: State) -> State:
    return {**renamed(state, ('^reg_token$', 'register_tokens')), 'mask_token': torch.randn(1, 16)}


def chunked(state: State) -> State:
    """Blocks 0 and 1 in chunk 0, block 2 in chunk 1."""
    return {re.sub(r'^blocks\.(\d+)', lambda m: f'blocks.{int(m[1]) // 2}.{m[1]}', k): v
            for k, v in dinov2(state).items()}


def dinov2_teacher(state: State) -> dict:
    head = {'dino_head.mlp.0.weight': torch.randn(8, 16), 'dino_head.last_layer.weight_g': torch.randn(10, 1)}
    return dict(teacher={**prefixed(chunked(state), 'backbone.'), **head})


def dinov2_training(state: State) -> dict:
    student = {name: torch.randn_like(value) for name, value in chunked(state).items()}
    head = {'dino_head.mlp.0.weight': torch.randn(8, 16), 'ibot_head.last_layer.weight_g': torch.randn(10, 1)}
    return dict(iteration=9, model={
        **prefixed({**prefixed(student, 'backbone.'), **head}, 'student.'),
        **prefixed({**prefixed(chunked(state), 'backbone.'), **head}, 'teacher.')})


def hugging_face(state: State, block: dict[str, str], prefix: str = '') -> State:
    """The names of transformers, written by hand; ``block`` names the parts in which its ViT and Dinov2 differ."""
    file = {'cls_token': 'embeddings.cls_token', 'pos_embed': 'embeddings.position_embeddings',
            'reg_token': 'embeddings.register_tokens', 'norm.weight': 'layernorm.weight', 'norm.bias': 'layernorm.bias',
            'patch_embed.proj.weight': 'embeddings.patch_embeddings.projection.weight',
            'patch_embed.proj.bias': 'embeddings.patch_embeddings.projection.bias'}
    result = {prefix + file[name]: value for name, value in state.items() if name in file}
    for name, value in state.items():
        if name in file:
            continue
        _, i, part = name.split('.', 2)
        layer = f'{prefix}encoder.layer.{i}.'
        if part.startswith('attn.qkv.'):
            for third, qkv in zip(value.chunk(3), ('query', 'key', 'value'), strict=True):
                result[f'{layer}attention.attention.{qkv}.{part.split(".")[-1]}'] = third.clone()
        else:
            module, kind = part.rsplit('.', 1)
            result[layer + (block[part] if part in block else f'{block[module]}.{kind}')] = value
    return result


HF_VIT = {'norm1': 'layernorm_before', 'norm2': 'layernorm_after', 'attn.proj': 'attention.output.dense',
          'mlp.fc1': 'intermediate.dense', 'mlp.fc2': 'output.dense'}
HF_DINOV2 = {'norm1': 'norm1', 'norm2': 'norm2', 'attn.proj': 'attention.output.dense', 'mlp.fc1': 'mlp.fc1',
             'mlp.fc2': 'mlp.fc2', 'ls1.gamma': 'layer_scale1.lambda1', 'ls2.gamma': 'layer_scale2.lambda1'}


def hf_classifier(state: State) -> State:
    return {**hugging_face(state, HF_VIT, 'vit.'), 'classifier.weight': torch.randn(2, 16)}


def hf_mae(state: State) -> State:
    return {**hugging_face(state, HF_VIT, 'vit.'), 'decoder.mask_token': torch.randn(1, 1, 8),
            'decoder.decoder_layers.0.attention.attention.query.weight': torch.randn(8, 8)}


def hf_dinov2(state: State, prefix: str = '') -> State:
    return {**hugging_face(state, HF_DINOV2, prefix), f'{prefix}embeddings.mask_token': torch.randn(1, 16)}


TORCH_LAYOUTS |= {
    'DINO training': dino_training,
    'Hugging Face ViT': lambda state: {**hugging_face(state, HF_VIT), 'pooler.dense.bias': torch.randn(16)},
    'Hugging Face classifier': hf_classifier,
    'Hugging Face MAE': hf_mae,
}
LAYER_SCALE, REGISTERS = dict(layer_scale=True), dict(layer_scale=True, num_registers=4)
DINOV2_LAYOUTS: dict[str, tuple[Callable[[State], dict], dict]] = {
    'DINOv2': (dinov2, LAYER_SCALE),
    'DINOv2 with registers': (dinov2, REGISTERS),
    'DINOv2 in chunks': (chunked, REGISTERS),
    'DINOv2 training, teacher': (dinov2_teacher, LAYER_SCALE),
    'DINOv2 training': (dinov2_training, REGISTERS),
    'Hugging Face Dinov2': (hf_dinov2, LAYER_SCALE),
    'Hugging Face Dinov2 with registers': (lambda state: hf_dinov2(state, 'dinov2_with_registers.'), REGISTERS),
    'ours with registers': (our_own, REGISTERS),
    'mmpretrain with LayerScale': (lambda state: renamed(
        to_openmmlab(state), (r'\bls1\.gamma', 'attn.gamma1.weight'), (r'\bls2\.gamma', 'ffn.gamma2.weight')),
                                   LAYER_SCALE),
    'timm with LayerScale': (dict, LAYER_SCALE),
}


def sharded(state: State) -> State:
    """Names of FSDP around each block, in DDP's, with torch.compile and activation checkpointing inside."""
    return renamed(state, (r'^blocks\.(\d+)\.', r'blocks.\1._fsdp_wrapped_module._checkpoint_wrapped_module.'),
                   (r'\.attn\.', '.attn._orig_mod.'), ('^', 'module._fsdp_wrapped_module.'))


# Steps that training programs put before or between names, around layouts from above.
WRAPPED: dict[str, Callable[[State], State]] = {
    'DDP': lambda state: prefixed(state, 'module.'),
    'DDP around torch.compile': lambda state: prefixed(state, 'module._orig_mod.'),
    'Lightning, compiled': lambda state: prefixed(state, '_orig_mod.model.backbone.'),
    'FSDP': sharded,
    'averaged by torch': lambda state: {**prefixed(state, 'module.'), 'n_averaged': torch.tensor(3)},
    'Hugging Face ViT in a net': lambda state: prefixed(hugging_face(state, HF_VIT), 'net.vit.'),
}


# --- DINOv3 ---


def dinov3(state: State) -> State:
    """The official names, with what stands beside; the bias of the keys is masked there, and is not 0 itself."""
    file = renamed(state, ('^reg_token$', 'storage_tokens'), (r'fc1_g', 'w1'), (r'fc1_x', 'w2'))
    if 'blocks.0.mlp.w1.weight' in file:
        file = renamed(file, (r'mlp\.fc2', 'mlp.w3'))
    for name in [name for name in file if name.endswith('qkv.bias')]:
        dims = len(file[name]) // 3
        file[f'{name}_mask'] = torch.cat([torch.ones(dims), torch.zeros(dims), torch.ones(dims)])
        file[name] = file[name] + torch.cat([torch.zeros(dims), torch.full((dims, ), 3.), torch.zeros(dims)])
    return {**file, 'mask_token': torch.randn(1, 16), 'rope_embed.periods': torch.ones(1)}


def timm_dinov3(state: State) -> State:
    """The names of timm's ``_qkvb`` models."""
    file = renamed(state, (r'ls([12])\.gamma', r'gamma_\1'))
    for name in [name for name in file if name.endswith('qkv.bias')]:
        prefix = name.removesuffix('qkv.bias')
        file[f'{prefix}q_bias'], _, file[f'{prefix}v_bias'] = file.pop(name).chunk(3)
    return {**file, 'head.weight': torch.randn(10, 16)}


def hf_dinov3(state: State, layer: str = 'model.layer', prefix: str = '') -> State:
    """The names of transformers; in its older versions ``layer`` is 'layer'."""
    gated = 'blocks.0.mlp.fc1_g.weight' in state
    file = renamed(state, ('^cls_token$', 'embeddings.cls_token'), ('^reg_token$', 'embeddings.register_tokens'),
                   (r'^patch_embed\.proj', 'embeddings.patch_embeddings'), (r'^blocks', layer),
                   (r'ls([12])\.gamma', r'layer_scale\1.lambda1'), (r'attn\.proj', 'attention.o_proj'),
                   (r'fc1_g', 'gate_proj'), (r'fc1_x', 'up_proj'), (r'fc1\b', 'up_proj'), (r'fc2', 'down_proj'))
    assert gated == any('gate_proj' in name for name in file)
    for name in [name for name in file if '.attn.qkv.' in name]:
        for part, value in zip('qkv', file.pop(name).chunk(3)):
            if (part, name[-4:]) != ('k', 'bias'):
                file[name.replace('attn.qkv', f'attention.{part}_proj')] = value.clone()
    return prefixed({**file, 'embeddings.mask_token': torch.randn(1, 1, 16)}, prefix)


DINOV3 = dict(layer_scale=True, num_registers=4, rotary='bfloat16', qkv_bias='qv', norm_eps=1e-5)
GATED = dict(**DINOV3, gated_mlp=True)
NO_BIAS = dict(GATED, qkv_bias='')  # ViT-7B
DINOV3_LAYOUTS: dict[str, tuple[Callable[[State], State], dict]] = {
    f'{name}{kind}': (make, options)
    for name, make in {
        'DINOv3': dinov3,
        'timm DINOv3': timm_dinov3,
        'Hugging Face DINOv3': hf_dinov3,
        'ours, DINOv3': our_own,
    }.items() for kind, options in {'': DINOV3, ' gated': GATED, ' without bias': NO_BIAS}.items()}
DINOV3_LAYOUTS['Hugging Face DINOv3, older'] = (lambda state: hf_dinov3(state, 'layer', 'dinov3_vit.'), GATED)
DINOV3_LAYOUTS['DINOv3 in data-parallel training'] = (lambda state: prefixed(dinov3(state), 'module.net.'), DINOV3)


def to_jax(state: State, num_heads: int = 4) -> dict[str, np.ndarray]:
    """The JAX names and axes of the weights; JAX's attention is checked for itself further down."""
    dims = state['cls_token'].shape[-1]
    arrays = {'cls': state['cls_token'], 'Transformer/posembed_input/pos_embedding': state['pos_embed'],
              'embedding/kernel': state['patch_embed.proj.weight'].permute(2, 3, 1, 0),
              'embedding/bias': state['patch_embed.proj.bias'],
              'pre_logits/kernel': torch.randn(dims, dims), 'head/kernel': torch.randn(dims, 10)}
    scales = {'norm': 'Transformer/encoder_norm'}
    for i in range(ARCH['num_layers']):
        block, jax = f'blocks.{i}', f'Transformer/encoderblock_{i}'
        attention = f'{jax}/MultiHeadDotProductAttention_1'
        for j, part in enumerate(('query', 'key', 'value')):
            rows = slice(j * dims, (j + 1) * dims)
            arrays[f'{attention}/{part}/kernel'] = state[f'{block}.attn.qkv.weight'][rows].T.reshape(
                dims, num_heads, -1)
            arrays[f'{attention}/{part}/bias'] = state[f'{block}.attn.qkv.bias'][rows].reshape(num_heads, -1)
        arrays[f'{attention}/out/kernel'] = state[f'{block}.attn.proj.weight'].T.reshape(num_heads, -1, dims)
        arrays[f'{attention}/out/bias'] = state[f'{block}.attn.proj.bias']
        for j in (0, 1):
            arrays[f'{jax}/MlpBlock_3/Dense_{j}/kernel'] = state[f'{block}.mlp.fc{j + 1}.weight'].T
            arrays[f'{jax}/MlpBlock_3/Dense_{j}/bias'] = state[f'{block}.mlp.fc{j + 1}.bias']
        scales |= {f'{block}.norm1': f'{jax}/LayerNorm_0', f'{block}.norm2': f'{jax}/LayerNorm_2'}
    for norm, jax in scales.items():
        arrays |= {f'{jax}/scale': state[f'{norm}.weight'], f'{jax}/bias': state[f'{norm}.bias']}
    return {name: value.numpy() for name, value in arrays.items()}


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


def shrunk(layouts_folder: Path, file: str, key: str) -> State:
    """Random weights at the names of a released file; the patch, its grid and the depth are the real ones."""
    shapes = json.loads((layouts_folder / file).read_text())[key]
    return {name: torch.randn([n // 32 if n % 32 == 0 else n for n in shape]) for name, shape in shapes.items()}


REAL_ARCH = dict(embed_dims=24, num_layers=12, num_heads=12)

"""Weights inside what training programs save around them: which part of a file, and under which prefix."""

import itertools
from pathlib import Path

import pytest
import torch
from vit_files import (
    HF_VIT,
    REGISTERS,
    TORCH_LAYOUTS,
    WRAPPED,
    State,
    assert_filled,
    assert_refused,
    build,
    dino_training,
    dinov2_training,
    hugging_face,
    mae_pretraining,
    mmpretrain_pretraining,
    moco_pretraining,
    our_own,
    prefixed,
    random_vit,
    save,
)

from mmseg_gpt.adapters import frozen_source, load_model_state
from mmseg_gpt.checkpoints import CheckpointError, load_vit, read_state_dict
from mmseg_gpt.checkpoints.parts import DEEPEST, parts_of
from mmseg_gpt.models import GatedPromptViT

OPTIMIZER = dict(state={0: dict(exp_avg=torch.randn(3), step=torch.tensor(4.))}, param_groups=[dict(lr=0.1)])


@pytest.fixture
def vit() -> GatedPromptViT:
    return build()


def assert_loads(content: object, expected: State, tmp_path: Path, key: str | None = None) -> None:
    """A file with this content fills a ViT with ``expected``."""
    vit = build()
    load_vit(vit, save(content, tmp_path / 'vit.ckpt'), key)
    assert_filled(vit, expected, vit.state_dict())


# --- Prefixes ---


@pytest.mark.parametrize('length', [1, 2, 3, 4])
def test_steps_of_wrappers_are_dropped_in_any_order_and_depth(length, tmp_path):
    state = random_vit()
    for steps in itertools.permutations(('module.', '_orig_mod.', 'model.', 'backbone.'), length):
        assert_loads(prefixed(state, ''.join(steps)), state, tmp_path)
        assert_loads(dict(state_dict=prefixed(state, ''.join(steps))), state, tmp_path)


@pytest.mark.parametrize('prefix', ['net.', 'encoder.', 'module.net.encoder.', 'ema.module.', 'student.vit.',
                                    'module.net.module.', 'image_encoder.trunk.', 'base_model.model.'])
def test_a_vit_is_found_in_a_model_by_any_name(prefix, tmp_path):
    state = random_vit()
    beside = {'head.weight': torch.randn(5, 16), 'criterion.weight': torch.randn(5)}
    assert_loads(dict(state_dict={**prefixed(state, prefix), **beside}, optimizer_states=[OPTIMIZER]), state, tmp_path)
    assert_loads(prefixed(hugging_face(state, HF_VIT), prefix), state, tmp_path)


@pytest.mark.parametrize('wrapper', WRAPPED)
def test_every_wrapper_is_seen_through(wrapper, tmp_path):
    state = random_vit()
    assert_loads(WRAPPED[wrapper](state), state, tmp_path)


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.'])
@pytest.mark.parametrize('layout', TORCH_LAYOUTS)
def test_every_layout_saved_in_data_parallel_or_compiled_training(layout, prefix, tmp_path):
    state = random_vit()
    content = TORCH_LAYOUTS[layout](state)
    inner = next((content[key] for key in ('model', 'state_dict', 'teacher') if key in content), content)
    assert_loads(dict(model_state_dict=prefixed(inner, prefix), optimizer_state_dict=OPTIMIZER), state, tmp_path)


def test_safetensors_with_a_prefix(vit, tmp_path):
    state = random_vit()
    pytest.importorskip('safetensors.torch').save_file(prefixed(state, 'model.net.'), tmp_path / 'vit.safetensors')
    load_vit(vit, tmp_path / 'vit.safetensors')
    assert_filled(vit, state, vit.state_dict())


def test_where_the_vit_was_found_is_said(vit, tmp_path, log):
    load_vit(vit, save(prefixed(random_vit(), 'module.net.'), tmp_path / 'vit.pth'))
    assert any('read as: timm names (MAE, DINO, timm), under "net."' in record.getMessage() for record in log)


def test_two_names_that_differ_in_wrappers_only_are_refused(vit, tmp_path):
    state = random_vit()
    assert_refused(vit, save({**state, 'module.norm.weight': state['norm.weight']}, tmp_path / 'vit.pth'),
                   'two of its names both mean norm.weight')


def test_what_stands_beside_the_vit_is_refused_unless_it_is_left_out_on_purpose(vit, tmp_path):
    state = random_vit()
    content = {**prefixed(state, 'net.'), 'upsampler.weight': torch.randn(3, 3)}
    assert_refused(vit, save(content, tmp_path / 'vit.pth'),
                   r"unexpected \(1\): /upsampler.weight\n.*key='net'.*--key net ")
    assert_loads(content, state, tmp_path, key='net')


def test_a_timm_model_with_registers_inside_another(tmp_path):
    state = random_vit(**REGISTERS)
    state['pos_embed'][:, 0] = 0
    vit, path = build(**REGISTERS), tmp_path / 'vit.ckpt'
    save(prefixed({**state, 'pos_embed': state['pos_embed'][:, 1:]}, 'backbone.'), path)
    assert_refused(vit, path, "pos_embed has 16 entries.*key='backbone'")
    load_vit(vit, path, key='backbone')
    assert_filled(vit, state, vit.state_dict())


@pytest.mark.parametrize('name', ['attn.qkv.lora_A.default.weight', 'attn.qkv.base_layer.weight',
                                  'modules_to_save.default.weight', 'mlp.fc1.lora_magnitude_vector.default.weight'])
def test_updates_that_are_not_merged_are_refused(name, vit, tmp_path):
    content = prefixed({**random_vit(), f'blocks.1.{name}': torch.randn(4, 16)}, 'base_model.model.')
    assert_refused(vit, save(content, tmp_path / 'adapter_model.bin'), r'merge_and_unload')


# --- Parts of a file ---


@pytest.mark.parametrize('key', ['model', 'state_dict', 'teacher', 'module', 'model_state_dict', 'model_ema',
                                 'state_dict_ema', 'ema', 'ema.module', 'model.state_dict', 'teacher.model.module'])
def test_every_wrapper_is_known(key, tmp_path):
    state = content = random_vit()
    for step in reversed(key.split('.')):
        content = {step: content, 'optimizer': OPTIMIZER, 'epoch': 3, 'best': torch.tensor(0.7), 'model_config': {}}
    assert_loads(content, state, tmp_path)
    assert_loads(content, state, tmp_path, key=key)
    assert_loads(content, state, tmp_path, key=key.split('.')[0])


def test_a_checkpoint_of_deepspeed(tmp_path):
    state = random_vit()
    shapes = [{name: value.shape for name, value in state.items()}]
    content = dict(module=state, buffer_names=[], optimizer=None, param_shapes=shapes, frozen_param_shapes=None,
                   ds_config=dict(train_batch_size=8), ds_version='0.18', lr_scheduler=None, data_sampler=None,
                   sparse_tensor_module_names=set(), skipped_steps=0, global_steps=5, dp_world_size=1)
    assert_loads(content, state, tmp_path)


@pytest.mark.parametrize('keys, make', [
    (('model', 'model_ema'), lambda a, b: dict(model=a, model_ema=b, optimizer=OPTIMIZER)),  # DeiT
    (('state_dict', 'state_dict_ema'), lambda a, b: dict(state_dict=a, state_dict_ema=b, arch='vit_tiny')),  # timm
    (('model', 'ema.module'), lambda a, b: dict(model=a, ema=dict(module=b, updates=3))),
    (('model', 'ema'), lambda a, b: dict(model=prefixed(a, 'module.'), ema=prefixed(b, 'module.'))),
    (('model', 'teacher'), lambda a, b: dict(model=a, teacher=prefixed(b, 'backbone.'))),
    (('ema_net', 'net'), lambda a, b: dict(state_dict={**prefixed(b, 'net.'), **prefixed(a, 'ema_net.')})),
    (('student', 'teacher'), lambda a, b: {**prefixed(a, 'student.'), **prefixed(b, 'teacher.')}),
    (('backbone', 'ema'), lambda a, b: {**prefixed(a, 'backbone.'), **prefixed(b, 'ema.module.backbone.')}),
    (('b', 'a'), lambda a, b: {**prefixed(b, 'a.'), **prefixed(hugging_face(a, HF_VIT), 'b.')}),
])
def test_two_models_are_named_and_key_takes_either(keys, make, vit, tmp_path):
    states = random_vit(), random_vit()
    path = save(make(*states), tmp_path / 'vit.pth')
    assert_refused(vit, path, f"holds 2 models, under '.*{keys[0]}.*' and '.*{keys[1]}.*'.*key='.*--key ")
    for key, state in zip(keys, states):
        load_vit(vit, path, key)
        assert_filled(vit, state, vit.state_dict())


def test_a_vit_of_which_a_copy_stands_beside_is_not_taken_silently(vit, tmp_path):
    state = random_vit()
    path = save({**random_vit(), **prefixed(state, 'ema.')}, tmp_path / 'vit.pth')
    assert_refused(vit, path, "holds 2 models.*'ema'")
    assert_loads({**random_vit(), **prefixed(state, 'ema.')}, state, tmp_path, key='ema')


def test_of_an_encoder_and_a_decoder_of_blocks_the_encoder_is_the_vit(vit, tmp_path):
    decoder = {k: v for k, v in random_vit().items() if k.startswith('blocks.')}
    state = random_vit()
    assert_loads({**prefixed(state, 'encoder.'), **prefixed(decoder, 'decoder.')}, state, tmp_path)


def test_a_model_that_is_saved_under_two_keys_is_one(tmp_path):
    state = random_vit()
    assert_loads(dict(model=state, ema=state), state, tmp_path)


def test_of_published_pairs_the_one_to_be_used_is_taken_and_key_takes_the_other(tmp_path):
    """DINO and DINOv2 publish the teacher, MoCo v3 its base encoder, MMEngine the averaged weights."""
    for make, keys, options in (
        (dino_training, ('teacher', 'student'), {}),
        (dinov2_training, ('teacher', 'student'), REGISTERS),
        (moco_pretraining, ('base_encoder', 'momentum_encoder'), {}),
        (lambda state: {**our_own(state), 'ema_state_dict': prefixed(random_vit(), 'module.backbone.')},
         ('state_dict', 'ema_state_dict'), {}),
    ):
        state = random_vit(**options)
        path, vit = save(make(state), tmp_path / 'vit.pth'), build(**options)
        for key in (None, keys[0]):
            load_vit(vit, path, key)
            assert_filled(vit, state, vit.state_dict())
        load_vit(vit, path, keys[1])
        assert not torch.equal(vit.cls_token, state['cls_token'])


@pytest.mark.parametrize('outer', ['net', 'target_encoder', 'network.params'])
def test_unknown_parts_are_named_and_taken_by_key(outer, vit, tmp_path):
    state = content = random_vit()
    for step in reversed(outer.split('.')):
        content = {step: content, 'prototypes': torch.tensor(3.)}
    path = save(content, tmp_path / 'vit.pth')
    assert_refused(vit, path, f"holds no weights: .*To take tensors from elsewhere in it .*'{outer}'.*key='NAME'")
    assert_loads(content, state, tmp_path, key=outer)


@pytest.mark.parametrize('key', ['teacher', 'model.teacher', 'blocks.7', '', 'cls_token', 'mod'])
def test_a_key_that_is_not_there_is_refused_saying_what_is(key, vit, tmp_path):
    path = save(dict(model=mae_pretraining(random_vit())['model']), tmp_path / 'vit.pth')
    if key:
        assert_refused_by_key(vit, path, key, 'has no part|missing')
    else:
        load_vit(vit, path, key)


def assert_refused_by_key(vit: GatedPromptViT, path: Path, key: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        load_vit(vit, path, key)
    assert path.name in str(raised.value)


def test_init_cfg_has_a_key(tmp_path):
    state = random_vit()
    path = save(dict(model=random_vit(), model_ema=state), tmp_path / 'vit.pth')
    vit = build(init_cfg=dict(type='PretrainedViT', checkpoint=str(path), key='model_ema'))
    vit.init_weights()
    assert_filled(vit, state, vit.state_dict())


def test_adapters_alone_are_filled_up_by_key(tmp_path):
    state = random_vit()
    path = save(dict(model=random_vit(), model_ema=state), tmp_path / 'vit.pth')
    init_cfg = dict(type='PretrainedViT', checkpoint=str(path), key='model_ema')
    vit, other = build(init_cfg=init_cfg), build(init_cfg=init_cfg)
    vit.init_weights()
    adapters = {name: value for name, value in vit.state_dict().items() if name not in state}
    load_model_state(other, dict(state_dict=adapters, meta=dict(frozen=frozen_source(vit))), 'adapters.pth')
    assert_filled(other, state, vit.state_dict())


def test_reading_by_key_keeps_the_names(tmp_path):
    content = mmpretrain_pretraining(random_vit())
    path = save(dict(content, ema_state_dict=random_vit()), tmp_path / 'vit.pth')
    assert read_state_dict(path).keys() == content['state_dict'].keys()
    assert read_state_dict(path, key='ema_state_dict').keys() == random_vit().keys()
    assert read_state_dict(path, key='backbone').keys() == {
        name.removeprefix('backbone.') for name in content['state_dict'] if name.startswith('backbone.')}


def test_dicts_in_dicts_without_end_are_not_followed(vit, tmp_path):
    endless = {}
    endless['model'] = endless
    assert_refused(vit, save(endless, tmp_path / 'vit.pth'), 'holds no weights')
    content = random_vit()
    for _ in range(DEEPEST + 1):
        content = dict(model=content)
    assert parts_of(content) == {}
    many: dict = dict(x=torch.ones(3))
    for _ in range(DEEPEST):
        many = {str(i): many for i in range(1000)}
    assert len(parts_of(many)) == 1

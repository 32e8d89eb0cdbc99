"""LoRA, updates of biases and bottlenecks: what they compute, what is trained, and what checkpoints hold."""

import copy
import json
import math
from contextlib import nullcontext

import pytest
import torch
from conftest import TINY
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.export import Dim, export

from mmseg_gpt.adapters import frozen_source, frozen_state, load_model_state, with_frozen_state
from mmseg_gpt.analysis.attention import switched_off, variants
from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.checkpoints.formats import UPDATE
from mmseg_gpt.checkpoints.load import load_vit
from mmseg_gpt.checks.checkpoint import check_backbone
from mmseg_gpt.convert import convert, read_vit
from mmseg_gpt.models import GatedPromptViT, LoRAViT
from mmseg_gpt.models.updates import Bottleneck, LoRALinear, without_updates

SIZE = dict(arch=TINY, img_size=32, patch_size=8)
ALL = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
LORA = dict(lora=dict(rank=3, alpha=6, targets=ALL))
BIASES = dict(biases=True)
DINOV3 = dict(rotary='float32', qkv_bias='qv', layer_scale=True, num_registers=2)
ADAPTER = dict(adapter=dict(width=5, scale=0.3))
GATED = dict(prompt=dict(type='GatedPrompt', num_tokens=2, dropout=0.), temperature=True)
KINDS = dict(lora=LORA, biases=BIASES, adapter=ADAPTER, all=LORA | BIASES | ADAPTER)
each_kind = pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)


def images(dtype: torch.dtype = torch.float64, side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def names(vit: GatedPromptViT) -> set[str]:
    """Names of the updates."""
    return {name for name, _ in vit.named_parameters()
            if any(part in name for part in ('.lora_', '.bias_update', '.adapter.'))}


# --- what is computed ---


@each_kind
@pytest.mark.parametrize('others', [
    {}, GATED, dict(prompt=dict(type='DeepPrompt', num_tokens=2, dropout=0.)), DINOV3 | GATED])
def test_an_updated_vit_begins_as_the_pretrained_one(options, others, tiny_vit):
    plain = tiny_vit(**others)
    vit = GatedPromptViT(**SIZE, **others, **options).double().eval()
    assert not vit.load_state_dict({**vit.state_dict(), **plain.state_dict()}).missing_keys
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(vit(images()), plain(images()), rtol=1e-12, atol=1e-12)


@each_kind
def test_without_gradients_and_exported_it_computes_what_it_computes_in_training(options, tiny_vit):
    usual = GatedPromptViT(**SIZE, **options, **GATED).eval()
    for name in names(usual):
        nn.init.normal_(usual.get_parameter(name), std=0.02)
    for vit, dtype, tolerance in ((tiny_vit(**options, **GATED), torch.float64, 1e-12), (usual, torch.float32, 1e-6)):
        kept, scale = copy.deepcopy(vit.state_dict()), vit(images(dtype))[0].abs().max()
        with torch.no_grad():
            found = vit(images(dtype))[0]
        with torch.inference_mode():
            assert torch.equal(vit(images(dtype))[0], found)
        trained = vit(images(dtype))[0].detach()
        assert (found - trained).abs().max() <= tolerance * scale
        assert all(torch.equal(value, kept[name]) for name, value in vit.state_dict().items())
        program = export(vit, (images(dtype), ), dynamic_shapes=({0: Dim('batch', min=1, max=9)}, ))
        assert (program.module()(images(dtype))[0] - found).abs().max() <= tolerance * scale


def test_evaluation_multiplies_each_matrix_once(monkeypatch, tiny_vit):
    vit, shapes = tiny_vit(lora=dict()), []
    monkeypatch.setattr('mmseg_gpt.models.updates.F.linear', lambda *inputs, linear=nn.functional.linear:
                        shapes.append(tuple(inputs[1].shape)) or linear(*inputs))
    with torch.no_grad():
        vit(images())
    assert not any(4 in shape for shape in shapes)
    shapes.clear()
    vit(images())
    assert shapes.count((4, 32)) == 4


def test_lora_is_a_scaled_product_of_two_matrices(tiny_vit):
    vit = tiny_vit(**LORA)
    plain = tiny_vit()
    weights = {name: p.clone() for name, p in vit.vit_state().items()}
    for name, layer in vit.named_modules():
        if isinstance(layer, LoRALinear):
            weights[f'{name}.weight'] += 6 / 3 * layer.lora_b @ layer.lora_a
    plain.load_state_dict(weights)
    torch.testing.assert_close(vit(images()), plain(images()), rtol=1e-12, atol=1e-12)


def test_updates_of_biases_are_added_to_them(tiny_vit):
    vit = tiny_vit(**BIASES, out_type='cls_token')
    plain = tiny_vit(out_type='cls_token')
    weights = dict(vit.vit_state())
    biases = [name for name in weights if name.endswith('.bias')]
    assert names(vit) == {f'{name}_update' for name in biases}
    plain.load_state_dict(weights | {name: weights[name] + vit.get_parameter(f'{name}_update') for name in biases})
    torch.testing.assert_close(vit(images()), plain(images()), rtol=1e-12, atol=1e-12)


def test_a_bottleneck_reads_what_the_mlp_reads(tiny_vit):
    mlp = tiny_vit(**ADAPTER).blocks[0].mlp
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    down, up = mlp.adapter.down, mlp.adapter.up
    hidden = (x @ down.weight.T + down.bias).clamp(min=0)
    wanted = mlp.fc2(mlp.act(mlp.fc1(x))) + 0.3 * (hidden @ up.weight.T + up.bias)
    torch.testing.assert_close(mlp(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('rank, alpha', [(1, 4), (4, 4), (8, 16)])
def test_lora_is_that_of_mmpretrain(rank, alpha):
    theirs = pytest.importorskip('mmpretrain.models.peft.lora').LoRALinear(nn.Linear(32, 96), alpha, rank).double()
    nn.init.normal_(theirs.lora_up.weight)
    ours = LoRALinear(copy.deepcopy(theirs.original_layer).requires_grad_(False), rank, alpha)
    with torch.no_grad():
        ours.lora_a.copy_(theirs.lora_down.weight)
        ours.lora_b.copy_(theirs.lora_up.weight)
    assert_alike(ours, theirs, ((ours.lora_a, theirs.lora_down.weight), (ours.lora_b, theirs.lora_up.weight)))


@pytest.mark.parametrize('rank, alpha', [(1, 4), (4, 4), (8, 16)])
def test_lora_is_that_of_peft(rank, alpha):
    peft = pytest.importorskip('peft')
    model = nn.Sequential()
    model.add_module('layer', nn.Linear(32, 96).double())
    base = copy.deepcopy(model.layer).requires_grad_(False)
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=['layer']))
    a, b = (theirs.base_model.model.layer.get_parameter(f'lora_{side}.default.weight') for side in 'AB')
    nn.init.normal_(b)
    ours = LoRALinear(base, rank, alpha)
    with torch.no_grad():
        ours.lora_a.copy_(a)
        ours.lora_b.copy_(b)
    assert_alike(ours, theirs.double(), ((ours.lora_a, a), (ours.lora_b, b)))


def assert_alike(ours: nn.Module, theirs: nn.Module, pairs: tuple[tuple[Tensor, Tensor], ...]) -> None:
    """Compares outputs, and gradients of the input and of pairs of weights, in float64."""
    x, y = (torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
            for _ in range(2))
    for module, input in ((ours, x), (theirs, y)):
        (module(input) * torch.linspace(-1, 1, 96, dtype=torch.float64)).pow(2).sum().backward()
    torch.testing.assert_close(ours(x), theirs(y), rtol=1e-12, atol=1e-12)
    for one, other in ((x, y), *pairs):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-11)
    bound = 1 / math.sqrt(32)
    assert LoRALinear(nn.Linear(32, 96), 4, 4).lora_a.abs().max() <= bound


@each_kind
def test_gradients_are_those_of_finite_differences(options, tiny_vit):
    vit = tiny_vit(**options, out_type='mean_patch').train()
    trained = {name: p for name, p in vit.named_parameters() if p.requires_grad}
    assert trained.keys() == names(vit)
    vit(images())[0].pow(2).sum().backward()
    with torch.no_grad():
        step = {name: torch.randn_like(p) * 1e-6 for name, p in trained.items()}
        slope = sum((p.grad * step[name]).sum() for name, p in trained.items())
        ends = []
        for sign in (1, -2):
            for name, p in trained.items():
                p += sign * step[name]
            ends.append(vit(images())[0].pow(2).sum())
    torch.testing.assert_close((ends[0] - ends[1]) / 2, slope, rtol=1e-6, atol=0)


@each_kind
def test_recomputed_activations_give_the_same_gradients(options, tiny_vit):
    vit = tiny_vit(**options, **GATED).train()
    gradients = []
    for vit.with_cp in (False, True):
        vit.zero_grad()
        vit(images())[0].pow(2).sum().backward()
        gradients.append([p.grad.clone() for p in vit.parameters() if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


@each_kind
def test_under_autocast_small_updates_are_not_rounded_away(options, tiny_vit):
    vit = tiny_vit(**options, out_type='cls_token').float()
    with torch.no_grad():
        for name in names(vit):
            vit.get_parameter(name).mul_(0.02)
        exact = vit(images(torch.float32))[0]
        with switched_off(vit, updates=True):
            alone = vit(images(torch.float32))[0]
        with torch.autocast('cpu', torch.bfloat16):
            found = vit(images(torch.float32))[0].float()
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(vit(images(torch.float32))[0].float(), found)
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    assert not torch.equal(exact, alone)


# --- memory ---


def kept_bytes(vit: GatedPromptViT) -> int:
    """Bytes that autograd keeps for the backward, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in vit.parameters()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        output = vit(images())
    del output
    return sum(size for size, _ in kept.values())


def test_lora_keeps_the_input_of_a_layer_and_its_own_rank(tiny_vit):
    tokens, width = 2 * 17, 32
    few, many = (kept_bytes(tiny_vit(lora=dict(rank=rank)).train()) for rank in (2, 10))
    assert many - few == 4 * 8 * tokens * 8  # four blocks, ranks, tokens, bytes
    # The first block's attention has no gradient to the ViT's own layers below it, so it is compared with prompts.
    plain, lora = (kept_bytes(tiny_vit(**GATED, **options).train()) for options in ({}, dict(lora=dict(rank=2))))
    assert lora - plain <= 4 * (tokens + 4) * (width + 2) * 8


# --- what is trained, and what is refused ---


def test_updates_are_in_the_blocks_that_are_run():
    vit = GatedPromptViT(**SIZE, **KINDS['all'], out_indices=(0, 2))
    assert {name.split('.')[1] for name in names(vit) if name.startswith('blocks')} == {'0', '1', '2'}
    vit.train()(images(torch.float32))[1].sum().backward()
    assert all(p.grad is not None for p in vit.parameters() if p.requires_grad)


def test_targets_are_whole_names():
    vit = GatedPromptViT(**SIZE, lora=dict(targets='proj'))
    assert names(vit) == {f'blocks.{i}.attn.proj.lora_{side}' for i in range(4) for side in 'ab'}


@pytest.mark.parametrize('options, message', [
    (dict(lora=dict(targets=('attn.qkv', 'qvk'))), 'ends in qvk.*attn.qkv'),
    (dict(lora=dict(targets=('kv', ))), 'ends in kv'), (dict(lora=dict(targets=())), 'no linear layer'),
    (dict(lora=dict(rank=0)), 'rank must be at least 1'), (dict(lora=dict(rank=33)), 'at most 32'),
    (dict(lora=dict(alpha=0)), 'alpha must be positive'), (dict(lora=True), 'lora must be None or a dict'),
    (dict(adapter=dict(width=0)), 'width must be at least 1'), (dict(adapter=dict(scale=0.)), 'scale must be'),
    (dict(adapter=4), 'adapter must be None or a dict'), (dict(biases=1), 'biases must be True or False'),
    (dict(lora=dict(), frozen=False), 'frozen=False'), (dict(biases=True, frozen=False), 'frozen=False'),
])
def test_an_option_out_of_its_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GatedPromptViT(**SIZE, **options)


def test_misspelt_options_are_refused():
    for options in (dict(lora=dict(ranks=4)), dict(adapter=dict(dim=4))):
        with pytest.raises(TypeError):
            GatedPromptViT(**SIZE, **options)


# --- checkpoints ---


class Model(nn.Module):

    def __init__(self, backbone: GatedPromptViT) -> None:
        super().__init__()
        self.backbone = backbone


@pytest.fixture
def file(tmp_path):
    torch.save(dict(model=GatedPromptViT(**SIZE).state_dict()), tmp_path / 'vit.pth')
    return tmp_path / 'vit.pth'


def build(file, **options) -> Model:
    vit = GatedPromptViT(**SIZE, **options, init_cfg=dict(type='PretrainedViT', checkpoint=str(file)))
    vit.init_weights()
    for name in names(vit):
        nn.init.normal_(vit.get_parameter(name))
    return Model(vit)


def adapters_of(model: Model, **options) -> dict:
    """An adapter-only checkpoint, as a run writes it."""
    frozen = frozen_state(model)
    return dict(state_dict={k: v for k, v in copy.deepcopy(model.state_dict()).items() if k not in frozen},
                meta=dict(frozen=frozen_source(model), settings=json.dumps(
                    dict(model=dict(backbone=dict(SIZE, type='GatedPromptViT', **options))))))


@each_kind
def test_pretrained_files_fill_an_updated_vit_strictly(options, file, tmp_path):
    model = build(file, **options)
    pretrained = torch.load(file)['model']
    assert model.backbone.vit_state().keys() == pretrained.keys()
    assert all(torch.equal(p, pretrained[name]) for name, p in model.backbone.vit_state().items())
    del pretrained['blocks.1.norm1.bias']
    torch.save(dict(model=pretrained), tmp_path / 'less.pth')
    with pytest.raises(CheckpointError, match=r'blocks\.1\.norm1\.bias'):
        load_vit(model.backbone, tmp_path / 'less.pth')
    with pytest.raises(CheckpointError, match='does not fill the backbone'):
        model.backbone.load_state_dict({k: v for k, v in model.backbone.state_dict().items()
                                        if k not in {min(names(model.backbone))}})


@each_kind
@pytest.mark.parametrize('others', [{}, GATED])
def test_adapter_only_checkpoints_hold_the_updates_alone(options, others, file):
    model = build(file, **options, **others)
    model.eval()
    with torch.no_grad():
        wanted = model.backbone(images(torch.float32))[0]  # evaluation leaves no trace in checkpoints
    checkpoint = adapters_of(model, **options, **others)
    own = {'backbone.prompt.tokens', 'backbone.prompt.gate_prior', 'backbone.temperature'} if others else set()
    assert checkpoint['state_dict'].keys() == {f'backbone.{name}' for name in names(model.backbone)} | own
    other = build(file, **options, **others).eval()
    load_model_state(other, checkpoint, 'adapters.pth')
    check_backbone(other, checkpoint, 'adapters.pth')
    with torch.no_grad():
        assert torch.equal(other.backbone(images(torch.float32))[0], wanted)
    whole = with_frozen_state(checkpoint, str(file), 'adapters.pth')
    assert whole.keys() == model.state_dict().keys()
    assert all(torch.equal(v, whole[k]) for k, v in model.state_dict().items())
    with pytest.raises(CheckpointError, match='unexpected'):
        load_model_state(build(file, **others), checkpoint, 'adapters.pth')


@pytest.mark.parametrize('old, new, message', [
    (LORA, dict(lora=dict(LORA['lora'], alpha=3)), 'lora_alpha was 6 and is 3'),
    (ADAPTER, dict(adapter=dict(width=5)), 'adapter_scale was 0.3 and is 0.1')])
def test_factors_that_leave_no_trace_are_compared(old, new, message, file):
    checkpoint, other = adapters_of(build(file, **old), **old), build(file, **new)
    load_model_state(other, checkpoint, 'adapters.pth')
    with pytest.raises(CheckpointError, match=message):
        check_backbone(other, checkpoint, 'adapters.pth')


def test_positions_of_a_turned_grid_leave_no_trace_and_are_compared():
    options = dict(arch=dict(embed_dims=8, num_layers=1, num_heads=1), patch_size=8)
    trained, model = dict(options, type='GatedPromptViT', img_size=(16, 32)), torch.nn.Module()
    checkpoint = dict(meta=dict(settings=json.dumps(dict(model=dict(backbone=trained)))))
    for size in ((16, 32), (32, 16)):
        model.backbone = GatedPromptViT(**options, img_size=size)
        with nullcontext() if size == (16, 32) else pytest.raises(CheckpointError, match=r'\(2, 4\) and is \(4, 2\)'):
            check_backbone(model, checkpoint, 'turned.pth')


def test_a_pretrained_file_of_ours_is_not_read_into_a_turned_grid(tmp_path):
    options = dict(arch=dict(embed_dims=8, num_layers=1, num_heads=1), patch_size=8)
    vit = GatedPromptViT(**options, img_size=(16, 32))
    state = {f'backbone.{name}': value for name, value in vit.state_dict().items()}
    settings = json.dumps(dict(model=dict(backbone=dict(options, type='GatedPromptViT', img_size=[16, 32]))))
    torch.save(dict(state_dict=state, meta=dict(settings=settings)), tmp_path / 'ours.pth')
    load_vit(GatedPromptViT(**options, img_size=(16, 32)), tmp_path / 'ours.pth')
    with pytest.raises(CheckpointError, match=r'pos_embed \(file 2x4 patches, config 4x2\): turn img_size'):
        load_vit(GatedPromptViT(**options, img_size=(32, 16)), tmp_path / 'ours.pth')


@pytest.mark.parametrize('changes', [dict(rank=2), dict(targets=('attn.qkv', ))])
def test_rank_and_targets_are_seen_in_the_shapes(changes, file):
    checkpoint = adapters_of(build(file, **LORA), **LORA)
    with pytest.raises(CheckpointError, match='nothing was loaded'):
        load_model_state(build(file, lora=dict(LORA['lora'], **changes)), checkpoint, 'adapters.pth')


@each_kind
def test_the_vit_in_a_whole_checkpoint_is_read_without_updates(options, file, tmp_path):
    model = build(file, **options, **GATED)
    for state in (model.state_dict(), model.backbone.state_dict()):
        torch.save(dict(state_dict=state), tmp_path / 'whole.pth')
        found = read_vit(tmp_path / 'whole.pth')
        assert found.state.keys() == model.backbone.vit_state().keys()
        assert len(found.left_over) == len(state) - len(found.state)
    convert(tmp_path / 'whole.pth', tmp_path / 'timm.pth', 'timm')
    load_vit(GatedPromptViT(**SIZE), tmp_path / 'timm.pth')


def old_names(vit: GatedPromptViT) -> dict[str, Tensor]:
    """The state dict as LoRAViT had it when it wrapped mmpretrain's layer."""
    new = {'.lora_a': '.lora_down.weight', '.lora_b': '.lora_up.weight'}
    state = {}
    for name, value in vit.state_dict().items():
        layer, _, leaf = name.rpartition('.')
        if f'.{leaf}' in new:
            state[layer + new[f'.{leaf}']] = value
        else:
            state[f'{layer}.original_layer.{leaf}' if layer.endswith('attn.qkv') else name] = value
    return state


@pytest.mark.parametrize('kind, options', [('LoRAViT', {}), ('GatedPromptViT', dict(lora=dict()))])
def test_checkpoints_of_the_old_lora_are_read(kind, options, tmp_path):
    old = LoRAViT(**SIZE, out_type='cls_token')
    for name in names(old):
        nn.init.normal_(old.get_parameter(name))
    state = old_names(old)
    assert {name for name in state if 'blocks.0.attn.qkv' in name} == {
        f'blocks.0.attn.qkv.{name}' for name in ('original_layer.weight', 'original_layer.bias', 'lora_down.weight',
                                                 'lora_up.weight')}
    settings = dict(model=dict(backbone=dict(SIZE, type='LoRAViT', frozen=False, out_type='cls_token')))
    checkpoint = dict(state_dict={f'backbone.{k}': v for k, v in state.items()},
                      meta=dict(settings=json.dumps(settings)))
    kept = dict(checkpoint['state_dict'])
    model = Model(MODELS.build(dict(SIZE, type=kind, out_type='cls_token', **options)))
    load_model_state(model, checkpoint, 'old.pth')
    check_backbone(model, checkpoint, 'old.pth')
    assert checkpoint['state_dict'] == kept
    assert all(torch.equal(v, model.backbone.state_dict()[k]) for k, v in old.state_dict().items())
    direct = MODELS.build(dict(SIZE, type=kind, out_type='cls_token', **options))
    direct.load_state_dict(state)
    torch.testing.assert_close(direct(images(torch.float32)), old(images(torch.float32)), rtol=0, atol=0)
    torch.save(checkpoint, tmp_path / 'old.pth')
    assert read_vit(tmp_path / 'old.pth').state.keys() == old.vit_state().keys()
    other = Model(MODELS.build(dict(SIZE, type='LoRAViT', out_type='cls_token', alpha=9)))
    with pytest.raises(CheckpointError, match='lora_alpha was 4 and is 9'):
        check_backbone(other, checkpoint, 'old.pth')


def test_old_updates_of_blocks_that_are_not_run_are_left_out():
    old = LoRAViT(**SIZE)
    state = old_names(old)
    new = LoRAViT(**SIZE, out_indices=(1, ))
    new.load_state_dict(state)
    assert torch.equal(new.blocks[1].attn.qkv.lora_a, old.blocks[1].attn.qkv.lora_a)
    state['blocks.0.attn.qkv.lora_up.weight'] = state.pop('blocks.0.attn.qkv.lora_b', torch.zeros(96, 2))
    with pytest.raises(CheckpointError, match='misshapen'):
        new.load_state_dict(state)


@each_kind
@pytest.mark.parametrize('others', [{}, DINOV3])
def test_a_merged_copy_computes_the_same_without_updates_of_weights(options, others, tiny_vit):
    vit = tiny_vit(**options, **others, **GATED)
    before = copy.deepcopy(vit.state_dict())
    plain = without_updates(vit)
    torch.testing.assert_close(plain(images()), vit(images()), rtol=1e-12, atol=1e-12)
    assert all('adapter' in name for name in names(plain))
    assert not any(isinstance(module, LoRALinear) for module in plain.modules())
    assert all(torch.equal(v, before[k]) for k, v in vit.state_dict().items())
    if not names(plain):
        GatedPromptViT(**SIZE, **others, **GATED).double().load_state_dict(plain.state_dict())


@each_kind
def test_a_copy_has_updates_of_its_own(options, tiny_vit):
    vit = tiny_vit(**options)
    other = copy.deepcopy(vit)
    wanted = vit(images())[0]
    with torch.no_grad():
        for name in names(other):
            other.get_parameter(name).zero_()
    assert torch.equal(vit(images())[0], wanted) and not torch.allclose(other(images())[0], wanted)
    with switched_off(vit, updates=True):
        torch.testing.assert_close(vit(images())[0], other(images())[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(vit(images())[0], wanted)


def test_attention_is_shown_with_and_without_updates(tiny_vit):
    assert variants(tiny_vit(**LORA, **GATED)) == {
        'ViT alone': dict(prompts=True, temperatures=True, updates=True),
        'with updates': dict(prompts=True, temperatures=True), 'with updates and prompts': dict(temperatures=True),
        'with updates and prompts and temperatures': {}}


def test_every_update_begins_without_effect():
    assert not LoRALinear(nn.Linear(4, 4), 2, 2).lora_b.any()
    assert not Bottleneck(4, 2).up.weight.any()


# --- a run ---


def test_a_run_with_updates_resumes_from_its_adapters_as_if_it_had_not_stopped(tmp_path):
    from tiny_run import differing, run, saved, tiny_config
    options = dict(model__backbone__lora=dict(rank=2, targets=ALL), model__backbone__biases=True,
                   model__backbone__adapter=dict(width=3), default_hooks__checkpoint__adapter_only=True)
    run(tiny_config(tmp_path, **options))
    whole, middle = saved(tmp_path, 6), saved(tmp_path, 4)
    assert not {name for name in whole['state_dict'] if name.endswith(('qkv.weight', 'norm1.bias', 'proj.weight'))}
    updates = {name for name in whole['state_dict'] if UPDATE.fullmatch(name)}
    moved = [name for name in updates if not torch.equal(whole['state_dict'][name], middle['state_dict'][name])]
    assert len(moved) > 0.8 * len(updates) > 100  # the others get steps too small for float32
    for name in ('iter_6.pth', 'last_checkpoint'):
        (tmp_path / 'run' / name).unlink()
    run(tiny_config(tmp_path, resume=True, **options))
    assert not differing(whole, saved(tmp_path, 6))

"""The backbone: its numbers against a formulation of its own, its options, freezing, precision and registry."""

import copy
import importlib
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmseg_gpt.models import BiasTunedViT, GatedPromptViT

ALL_OUT_TYPES = ('featmap', 'cls_token', 'mean_patch', 'mean_prompt', 'mean_all')
STRATEGIES = ('ShallowPrompt', 'DeepPrompt', 'GatedPrompt', 'HardGatedPrompt')
NUM_PROMPTS = 3
images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def config_of(strategy: str | None, **options) -> dict | None:
    return strategy and dict(type=strategy, num_tokens=NUM_PROMPTS, **options)


# --- An independent reference: Algorithm 1 of the paper, every operation written out ---


def reference(weights: dict[str, Tensor], images: Tensor, patch: int, num_heads: int, strategy: str | None = None,
              start_block: int = 0, out_type: str = 'featmap', out_indices: tuple[int, ...] = (3, )) -> list[Tensor]:
    """Prompts stand after CLS and are sliced out and put back around each block, as in the paper."""
    w, batch = weights, len(images)
    depth = 1 + max(int(k.split('.')[1]) for k in w if k.startswith('blocks.'))
    h, width = images.shape[2] // patch, images.shape[3] // patch
    patches = images.reshape(batch, 3, h, patch, width, patch).permute(0, 2, 4, 1, 3, 5).reshape(batch, h * width, -1)
    patches = patches @ w['patch_embed.proj.weight'].flatten(1).T + w['patch_embed.proj.bias'] + w['pos_embed'][:, 1:]
    cls = (w['cls_token'] + w['pos_embed'][:, :1]).repeat(batch, 1, 1)
    x, n = torch.cat([cls, patches], dim=1), 0
    outputs = []
    for i in range(depth):
        if strategy and i == start_block:
            tokens = w['prompt.tokens'][i] if strategy == 'DeepPrompt' else w['prompt.tokens']
            n = len(tokens)
            x = torch.cat([x[:, :1], tokens.repeat(batch, 1, 1), x[:, 1:]], dim=1)
        prompt_before_block = x[:, 1:1 + n]
        x = reference_block(w, i, x, num_heads)
        prompt_after_block = x[:, 1:1 + n]
        if i in out_indices:
            outputs.append(reference_output(w, x, n, (h, width), out_type))
        if n and i < depth - 1:
            if strategy == 'DeepPrompt':
                prompt = w['prompt.tokens'][i + 1].repeat(batch, 1, 1)
            elif strategy == 'ShallowPrompt':
                prompt = prompt_after_block
            else:
                gamma = w['prompt.gate_prior'][i]
                gate = 1 / (1 + torch.exp(-gamma)) if strategy == 'GatedPrompt' else float(gamma > 0)
                prompt = gate * prompt_after_block + (1 - gate) * prompt_before_block
            x = torch.cat([x[:, :1], prompt, x[:, 1 + n:]], dim=1)
    return outputs


def reference_block(w: dict[str, Tensor], i: int, x: Tensor, num_heads: int) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f'blocks.{i}.{name}.weight'].T + w[f'blocks.{i}.{name}.bias']

    d = x.shape[-1] // num_heads
    q, k, v = (t.unflatten(-1, (num_heads, d)) for t in
               linear('attn.qkv', reference_norm(w, f'blocks.{i}.norm1', x)).chunk(3, dim=-1))
    score = torch.einsum('bihd,bjhd->bhij', q, k) / math.sqrt(d)
    if 'temperature' in w:
        score = score / w['temperature'][i]
    score = torch.exp(score - score.amax(-1, keepdim=True))
    attention = score / score.sum(-1, keepdim=True)
    x = x + linear('attn.proj', torch.einsum('bhij,bjhd->bihd', attention, v).flatten(2))
    hidden = linear('mlp.fc1', reference_norm(w, f'blocks.{i}.norm2', x))
    return x + linear('mlp.fc2', hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))


def reference_norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-6) * w[f'{name}.weight'] + w[f'{name}.bias']


def reference_output(w: dict[str, Tensor], x: Tensor, n: int, grid: tuple[int, int], out_type: str) -> Tensor:
    cls, prompts, patches = x[:, 0], x[:, 1:1 + n], x[:, 1 + n:]
    if out_type == 'featmap':
        return patches.permute(0, 2, 1).reshape(len(x), -1, *grid)
    pooled = {'cls_token': lambda: cls, 'mean_patch': lambda: patches.mean(1), 'mean_prompt': lambda: prompts.mean(1),
              'mean_all': lambda: torch.cat([prompts, patches], 1).mean(1)}[out_type]()
    return reference_norm(w, 'norm', pooled)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Agreement to 1e-12 of the largest entry, in float64."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12 * max(1., expected.abs().max().item()))


def assert_agrees_with_reference(vit: GatedPromptViT, strategy: str | None, out_type: str,
                                 out_indices: tuple[int, ...] = (3, )) -> None:
    weights = {k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in vit.named_parameters()}
    expected = reference(weights, images, 8, 4, strategy, vit.start_block, out_type, out_indices)
    actual = vit(images)
    assert isinstance(actual, tuple)
    assert len(actual) == len(expected) == len(out_indices)
    for ours, theirs in zip(actual, expected):
        assert_same(ours, theirs)
    if not any(p.requires_grad for p in vit.parameters()):
        return
    cotangents = [torch.randn_like(t) for t in expected]
    sum((t * c).sum() for t, c in zip(actual, cotangents)).backward()
    sum((t * c).sum() for t, c in zip(expected, cotangents)).backward()
    for name, parameter in vit.named_parameters():
        assert (parameter.grad is None) == (weights[name].grad is None), name
        if parameter.grad is not None:
            assert_same(parameter.grad, weights[name].grad)


@pytest.mark.parametrize('out_type', ALL_OUT_TYPES)
@pytest.mark.parametrize('start_block', [0, 1, 3])
@pytest.mark.parametrize('temperature', [False, True], ids=['plain', 'temperature'])
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_outputs_and_gradients_agree_with_algorithm_1(tiny_vit, strategy, temperature, start_block, out_type):
    vit = tiny_vit(prompt=config_of(strategy), temperature=temperature, start_block=start_block, out_type=out_type)
    assert_agrees_with_reference(vit, strategy, out_type)


@pytest.mark.parametrize('out_type', [t for t in ALL_OUT_TYPES if t != 'mean_prompt'])
@pytest.mark.parametrize('temperature', [False, True], ids=['plain', 'temperature'])
def test_without_prompts_it_is_the_plain_vit(tiny_vit, temperature, out_type):
    assert_agrees_with_reference(tiny_vit(temperature=temperature, out_type=out_type), None, out_type)


@pytest.mark.parametrize('strategy', [*STRATEGIES, None])
@pytest.mark.parametrize('out_type, out_indices', [('featmap', (0, 1, 3)), ('featmap', (2, )), ('mean_all', (1, 2))])
def test_outputs_of_several_blocks_agree_with_algorithm_1(tiny_vit, strategy, out_type, out_indices):
    vit = tiny_vit(prompt=config_of(strategy), temperature=True, out_indices=out_indices, out_type=out_type)
    assert_agrees_with_reference(vit, strategy, out_type, out_indices)


@pytest.mark.parametrize('strategy', ['GatedPrompt', 'DeepPrompt', None])
def test_full_fine_tuning_agrees_with_algorithm_1_in_every_gradient(tiny_vit, strategy):
    vit = tiny_vit(prompt=config_of(strategy), temperature=True, frozen=False, out_type='mean_all')
    assert all(p.requires_grad for p in vit.parameters())
    assert_agrees_with_reference(vit, strategy, 'mean_all')


def test_blocks_after_the_highest_out_index_are_not_run(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), out_indices=(0, 1))
    vit.blocks[2].register_forward_hook(lambda *args: pytest.fail('block 2 was run'))
    assert len(vit(images)) == 2


# --- The method's own limits and identities ---


@pytest.mark.parametrize('strategy', ['GatedPrompt', 'HardGatedPrompt'])
def test_gates_saturated_open_are_vpt_shallow(tiny_vit, strategy):
    shallow = tiny_vit(prompt=config_of('ShallowPrompt'), out_type='mean_all')
    gated = tiny_vit(prompt=config_of(strategy), out_type='mean_all')
    gated.load_state_dict({**shallow.state_dict(), 'prompt.gate_prior': torch.full((3, ), 40.)})
    assert torch.equal(gated(images)[0], shallow(images)[0])


def test_the_option_gate_init_minus_40_saturates_open_and_plus_40_closed():
    build = lambda gate_init: GatedPromptViT(  # noqa: E731
        arch=dict(embed_dims=8, num_layers=3, num_heads=2), prompt=config_of('GatedPrompt', gate_init=gate_init))
    assert build(-40.).prompt.gate(0) == 1
    assert build(40.).prompt.gate(0) < 1e-17


@pytest.mark.parametrize('strategy', ['GatedPrompt', 'HardGatedPrompt'])
def test_gates_saturated_closed_keep_the_prompts_between_blocks(tiny_vit, strategy):
    vit = tiny_vit(prompt=config_of(strategy))
    vit.prompt.gate_prior.data.fill_(-40.)
    given = prompts_given_to_the_blocks(vit)[0]
    assert len(given) == 4
    for prompts in given:
        torch.testing.assert_close(prompts, vit.prompt.tokens.expand(2, -1, -1), rtol=1e-14, atol=1e-14)


def prompts_given_to_the_blocks(vit: GatedPromptViT) -> tuple[list[Tensor], list[Tensor]]:
    """The prompts in each block's input and, raw, in its output."""
    given, returned = [], []
    for block in vit.blocks:
        block.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0][:, -NUM_PROMPTS:]))
        block.register_forward_hook(lambda module, inputs, output: returned.append(output[:, -NUM_PROMPTS:]))
    vit(images)
    return given, returned


def test_prompts_of_the_last_block_are_the_selective_aggregation_of_equation_8(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt'))
    given, returned = prompts_given_to_the_blocks(vit)
    g = vit.prompt.gate_prior.sigmoid()
    closed = 1 - g
    expected = closed[0] * closed[1] * closed[2] * vit.prompt.tokens + (
        g[0] * closed[1] * closed[2] * returned[0] + g[1] * closed[2] * returned[1] + g[2] * returned[2])
    torch.testing.assert_close(given[3], expected, rtol=1e-13, atol=1e-13)


def test_each_gate_and_each_temperature_has_its_own_effect(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), temperature=True, out_type='mean_all')
    base, = vit(images)
    for parameter in (vit.prompt.gate_prior, vit.temperature):
        for i in range(len(parameter)):
            kept = parameter.data.clone()
            parameter.data[i] += 0.5
            assert (vit(images)[0] - base).abs().max() > 1e-6
            parameter.data.copy_(kept)
    assert torch.equal(vit(images)[0], base)


def test_temperatures_of_1_equal_no_temperature(tiny_vit):
    plain = tiny_vit(prompt=config_of('GatedPrompt'))
    tempered = tiny_vit(prompt=config_of('GatedPrompt'), temperature=True)
    tempered.load_state_dict({**plain.state_dict(), 'temperature': torch.ones(4)})
    assert torch.equal(tempered(images)[0], plain(images)[0])


@pytest.mark.parametrize('option, low, high', [(True, 0.01, 10.), (dict(min=0.5, max=2), 0.5, 2.), ({}, 0.01, 10.)])
def test_temperatures_are_projected_into_their_range_in_the_forward(tiny_vit, option, low, high):
    vit = tiny_vit(temperature=option)
    vit.temperature.data = torch.tensor([-3., 0., 1.5, 99.], dtype=torch.float64)
    before, = vit(images)
    assert vit.temperature.tolist() == pytest.approx([low, low, 1.5, high])
    assert torch.equal(vit(images)[0], before)
    assert before.isfinite().all()
    vit(images)[0].sum().backward()
    assert vit.temperature.grad.ne(0).all()  # a temperature at its bound can come back


def test_temperature_options():
    build = lambda **options: GatedPromptViT(  # noqa: E731
        arch=dict(embed_dims=8, num_layers=3, num_heads=2), **options).temperature
    assert build() is None
    assert build(temperature=True).tolist() == [1, 1, 1]
    assert build(temperature=dict(init=2.)).tolist() == [2, 2, 2]


def test_the_place_of_the_prompts_in_the_sequence_changes_nothing(tiny_vit):
    vit = tiny_vit(prompt=config_of('ShallowPrompt'), temperature=True)
    cls_patches, _ = vit.embed(images)
    prompts = vit.prompt.first(0, 2)
    at_end = torch.cat([cls_patches, prompts], dim=1)
    after_cls = torch.cat([cls_patches[:, :1], prompts, cls_patches[:, 1:]], dim=1)
    for block, tau in zip(vit.blocks, vit.temperature):
        at_end, after_cls = block(at_end, tau), block(after_cls, tau)
    cls, moved, patches = after_cls.split([1, NUM_PROMPTS, 16], dim=1)
    assert_same(at_end, torch.cat([cls, patches, moved], dim=1))


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_patches_do_not_move_when_prompts_are_added(tiny_vit, strategy):
    # Blocks that do nothing show where each token comes out.
    plain, prompted = tiny_vit(), tiny_vit(prompt=config_of(strategy))
    prompted.load_state_dict({**prompted.state_dict(), **plain.state_dict()})
    for vit in (plain, prompted):
        for block in vit.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
    tokens, (h, w) = plain.embed(images)
    expected = tokens[:, 1:].transpose(1, 2).reshape(2, 32, h, w)
    assert torch.equal(plain(images)[0], expected)
    assert torch.equal(prompted(images)[0], expected)


@pytest.mark.parametrize('strategy', ['ShallowPrompt', 'DeepPrompt', 'GatedPrompt'])
def test_gradcheck_of_prompts_gates_and_temperatures(strategy):
    vit = GatedPromptViT(arch=dict(embed_dims=8, num_layers=3, num_heads=2, mlp_ratio=2), img_size=8, patch_size=4,
                         prompt=dict(type=strategy, num_tokens=2, dropout=0.), temperature=True, out_type='mean_all')
    vit.double()
    for parameter in vit.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    names = [name for name, p in vit.named_parameters() if p.requires_grad]
    values = [torch.rand_like(vit.get_parameter(name)) + 0.3 for name in names]
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *v: torch.func.functional_call(vit, dict(zip(names, v)), (x, ))[0], [v.requires_grad_() for v in values])


# --- Images of other sizes ---


@pytest.mark.parametrize('size', [(32, 32), (31, 33), (8, 8), (5, 3), (40, 24), (64, 17), (72, 96)])
@pytest.mark.parametrize('strategy', ['GatedPrompt', None])
def test_images_of_any_size_give_a_feature_map_rounded_up(tiny_vit, strategy, size):
    vit = tiny_vit(prompt=config_of(strategy), temperature=True, out_indices=(1, 3))
    odd = torch.randn(2, 3, *size, dtype=torch.float64)
    outputs = vit(odd)
    h, w = math.ceil(size[0] / 8), math.ceil(size[1] / 8)
    assert [tuple(o.shape) for o in outputs] == [(2, 32, h, w)] * 2

    by_hand = torch.zeros(2, 3, h * 8, w * 8, dtype=torch.float64)
    by_hand[..., :size[0], :size[1]] = odd
    for output, expected in zip(outputs, vit(by_hand)):
        assert torch.equal(output, expected)


@pytest.mark.parametrize('size', [(16, 16), (48, 24), (64, 64)])
def test_the_position_embedding_follows_the_size_of_the_image(tiny_vit, size):
    vit = tiny_vit(prompt=config_of('GatedPrompt'))
    grid = (size[0] // 8, size[1] // 8)
    other = tiny_vit(prompt=config_of('GatedPrompt'), img_size=size)
    assert other.grid == grid
    patches = vit.pos_embed[:, 1:].transpose(1, 2).reshape(1, 32, 4, 4)
    patches = F.interpolate(patches, grid, mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    other.load_state_dict({**vit.state_dict(), 'pos_embed': torch.cat([vit.pos_embed[:, :1], patches], dim=1)})
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    assert_same(vit(x)[0], other(x)[0])


@pytest.mark.parametrize('img_size, grid', [(32, (4, 4)), (33, (5, 5)), ((32, 64), (4, 8)), ([8, 9], (1, 2))])
def test_the_grid_of_img_size_is_rounded_up_too(tiny_vit, img_size, grid):
    vit = tiny_vit(img_size=img_size)
    assert vit.grid == grid
    assert vit.pos_embed.shape == (1, 1 + grid[0] * grid[1], 32)


# --- Half precision ---


@pytest.mark.parametrize('gate_init', [10., -10.])
def test_under_bf16_autocast_gates_and_temperatures_get_gradients_and_prompts_stay_float32(gate_init):
    vit = GatedPromptViT(arch=dict(embed_dims=32, num_layers=4, num_heads=4), img_size=32, patch_size=8,
                         prompt=config_of('GatedPrompt', gate_init=gate_init), temperature=True).eval()
    mixed = []
    vit.prompt.next = lambda *args: mixed.append(type(vit.prompt).next(vit.prompt, *args)) or mixed[-1]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output, = vit(images.float())
        output.float().pow(2).sum().backward()
    assert [m.dtype for m in mixed] == [torch.float32] * 3  # none after the last block
    assert vit.prompt.gate_prior.grad.ne(0).all()
    assert vit.temperature.grad.ne(0).all()
    assert vit.prompt.tokens.grad.ne(0).all()
    assert all(p.grad.dtype == torch.float32 for p in vit.parameters() if p.requires_grad)


def test_under_bf16_autocast_a_gate_of_4_5e_5_still_changes_the_prompts(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt')).float()
    vit.prompt.gate_prior.data.fill_(-10.)
    seen = []
    vit.prompt.next = lambda *args: seen.append((args[1], type(vit.prompt).next(vit.prompt, *args))) or seen[-1][1]
    with torch.autocast('cpu', dtype=torch.bfloat16), torch.no_grad():
        vit(images.float())
    for before, mixed in seen[:3]:
        assert (mixed != before).double().mean() > 0.9
        assert (mixed - before).abs().max() < 0.01


def test_bf16_autocast_is_near_float32(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), temperature=True, out_type='mean_all').float()
    with torch.no_grad():
        exact, = vit(images.float())
        with torch.autocast('cpu', dtype=torch.bfloat16):
            half, = vit(images.float())
    assert F.cosine_similarity(exact, half.float()).min() > 0.98


# --- What is trained, and what is frozen ---

TRAINED = {
    None: set(),
    'ShallowPrompt': {'prompt.tokens'},
    'DeepPrompt': {'prompt.tokens'},
    'GatedPrompt': {'prompt.tokens', 'prompt.gate_prior'},
    'HardGatedPrompt': {'prompt.tokens', 'prompt.gate_prior'},
}


@pytest.mark.parametrize('temperature', [False, True], ids=['plain', 'temperature'])
@pytest.mark.parametrize('strategy', TRAINED)
def test_only_the_adapters_are_trained_and_the_rest_stays_bit_identical(tiny_vit, strategy, temperature):
    vit = tiny_vit(prompt=config_of(strategy), temperature=temperature, out_type='mean_all').train()
    expected = TRAINED[strategy] | ({'temperature'} if temperature else set())
    assert {name for name, p in vit.named_parameters() if p.requires_grad} == expected
    if not expected:
        return
    before = copy.deepcopy(vit.state_dict())
    # All parameters are given, and weight decay would move those that only lack a gradient of their own.
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        vit(images)[0].pow(2).sum().backward()
        optimizer.step()
    changed = {name for name, value in vit.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == expected


@pytest.mark.parametrize('start_block', range(4))
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_every_trained_parameter_gets_a_gradient(tiny_vit, strategy, start_block):
    """Data-parallel training waits for all of them, and find_unused_parameters would cost time in every step."""
    vit = tiny_vit(prompt=dict(type=strategy, num_tokens=3), temperature=True, start_block=start_block).train()
    vit(torch.randn(2, 3, 32, 32).double())[-1].square().sum().backward()
    assert all(p.grad is not None for p in vit.parameters() if p.requires_grad)


@pytest.mark.parametrize('kind', [GatedPromptViT, BiasTunedViT])
def test_a_block_that_is_not_run_is_not_trained(kind):
    vit = kind(arch=dict(embed_dims=8, num_layers=3, num_heads=2), img_size=32, frozen=False, out_indices=(0, 1))
    sum(output.square().sum() for output in vit(torch.randn(1, 3, 32, 32))).backward()
    assert all((p.grad is not None) == p.requires_grad for p in vit.parameters())
    assert any(p.requires_grad for p in vit.blocks[1].parameters())


def test_a_strategy_from_elsewhere_is_trained_by_declaration(tiny_vit):
    class AnyName(nn.Module):

        def __init__(self, embed_dims, num_layers, patch_size):
            super().__init__()
            self.blocks = nn.Linear(embed_dims, 2, bias=False)  # a name like one of the ViT's

        def first(self, block, batch):
            return self.blocks.weight.expand(batch, -1, -1)

        def next(self, block, before, after):
            return after

    vit = tiny_vit(prompt=dict(type=AnyName))
    assert [name for name, p in vit.named_parameters() if p.requires_grad] == ['prompt.blocks.weight']
    assert 'prompt.blocks.weight' not in vit.vit_state()
    assert vit.train().prompt.blocks.training


def test_full_fine_tuning_moves_every_weight(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), temperature=True, frozen=False, out_type='mean_all').train()
    before = copy.deepcopy(vit.state_dict())
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.01)
    vit(images)[0].pow(2).sum().backward()
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in vit.state_dict().items())


@pytest.mark.parametrize('frozen', [True, False])
def test_train_returns_self_and_keeps_only_frozen_modules_in_eval_mode(tiny_vit, frozen):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), frozen=frozen, out_type='cls_token')
    assert vit.train() is vit
    assert vit.training
    assert vit.prompt.training
    assert vit.prompt.dropout.training
    vit_modules = [m for child in (vit.patch_embed, vit.blocks, vit.norm) for m in child.modules()]
    assert {m.training for m in vit_modules} == {not frozen}
    assert vit.eval() is vit
    assert not any(m.training for m in vit.modules())
    outer = nn.Sequential(vit).train()  # as a runner does it, from outside
    assert {m.training for m in vit_modules} == {not frozen}
    assert outer.training


@pytest.mark.parametrize('strategy', ['ShallowPrompt', 'DeepPrompt', 'GatedPrompt', None])
def test_training_mode_is_deterministic_but_for_prompt_dropout(tiny_vit, strategy):
    without = tiny_vit(prompt=config_of(strategy, dropout=0.), temperature=True).train()
    first, = without(images)
    assert torch.equal(without(images)[0], first)
    assert torch.equal(without.eval()(images)[0], first)
    if strategy:
        with_dropout = tiny_vit(prompt=config_of(strategy), temperature=True).train()
        assert not torch.equal(with_dropout(images)[0], with_dropout(images)[0])


def test_vit_state_is_all_but_the_adapters(tiny_vit):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), temperature=True, out_type='cls_token')
    plain = tiny_vit(out_type='cls_token')
    assert set(vit.vit_state()) == set(plain.state_dict()) == set(plain.vit_state())
    assert all(value is vit.get_parameter(name) for name, value in vit.vit_state().items())
    assert vit.norm is not None
    assert tiny_vit().norm is None


# --- Options that cannot be ---

SMALL = dict(embed_dims=8, num_layers=3, num_heads=2, mlp_ratio=4)
PROMPT = dict(type='GatedPrompt', num_tokens=2)


@pytest.mark.parametrize('message, options', [
    ('arch "giant" is unknown', dict(arch='giant')),
    ('arch needs exactly the keys', dict(arch=dict(embed_dim=8, num_layers=3, num_heads=2))),
    ('arch needs exactly the keys', dict(arch=dict(embed_dims=8, num_layers=3))),
    ('arch needs exactly the keys', dict(arch={**SMALL, 'drop_path': 0.1})),
    ('num_layers must be at least 1, got 0', dict(arch={**SMALL, 'num_layers': 0})),
    ('embed_dims 8 is not a multiple of num_heads 3', dict(arch={**SMALL, 'num_heads': 3})),
    ('num_heads must be at least 1, got 0', dict(arch={**SMALL, 'num_heads': 0})),
    ('num_heads must be at least 1, got -2', dict(arch={**SMALL, 'num_heads': -2})),
    ('embed_dims must be at least 1, got 0', dict(arch={**SMALL, 'embed_dims': 0})),
    ('img_size .* must be positive', dict(img_size=0)),
    ('img_size .* must be positive', dict(img_size=(32, -32))),
    ('patch_size .* must be positive', dict(patch_size=0)),
    ('num_registers must be at least 0, got -1', dict(num_registers=-1)),
    (r'out_indices \(\)', dict(out_indices=())),
    (r'out_indices \(-1,\)', dict(out_indices=(-1, ))),
    (r'out_indices \(3,\)', dict(out_indices=(3, ))),
    (r'out_indices \(0, 3\)', dict(out_indices=[0, 3])),
    (r'out_indices \(1, 1\)', dict(out_indices=(1, 1))),
    (r'out_indices \(2, 0\)', dict(out_indices=(2, 0))),
    ('out_type "mean" is unknown', dict(out_type='mean')),
    ('out_type "mean_prompt" needs prompts', dict(out_type='mean_prompt')),
    ('out_type "mean_prompt" needs prompts', dict(out_type='mean_prompt', prompt=PROMPT, start_block=1,
                                                  out_indices=(0, 2))),
    ('start_block -1', dict(start_block=-1, prompt=PROMPT)),
    ('start_block 3', dict(start_block=3, prompt=PROMPT)),
    ('start_block 2 .* out_indices', dict(start_block=2, prompt=PROMPT, out_indices=(0, 1))),
    ('temperature needs .* min=0', dict(temperature=dict(min=0))),
    ('temperature needs .* min=-1', dict(temperature=dict(min=-1))),
    ('temperature needs .* init=20', dict(temperature=dict(init=20))),
    ('temperature needs .* init=0.5', dict(temperature=dict(init=0.5, min=0.6))),
    ('temperature needs .* min=3, .* max=2', dict(temperature=dict(min=3, init=2.5, max=2))),
    ('temperature needs .* init=nan', dict(temperature=dict(init=math.nan))),
    ('temperature must be', dict(temperature=0.5)),
    ('temperature must be', dict(temperature=0.)),
    ('num_tokens must be at least 1, got 0', dict(prompt=dict(type='GatedPrompt', num_tokens=0))),
    ('num_tokens must be at least 1, got -5', dict(prompt=dict(type='DeepPrompt', num_tokens=-5))),
    ('at least 2 blocks', dict(prompt=PROMPT, arch={**SMALL, 'num_layers': 1})),
    ('dropout', dict(prompt=dict(type='ShallowPrompt', dropout=1.5))),
    ('init_cfg of type "Pretrained" .*"PretrainedViT"', dict(init_cfg=dict(type='Pretrained', checkpoint='mae.pth'))),
    ('init_cfg of type "Pretrained" .*"PretrainedViT"', dict(init_cfg=[dict(type='Pretrained', checkpoint='a.pth')])),
])
def test_an_option_out_of_its_range_raises_naming_it(message, options):
    with pytest.raises(ValueError, match=message):
        GatedPromptViT(**{**dict(arch=SMALL, img_size=16, patch_size=8), **options})


@pytest.mark.parametrize('error, name, options', [
    (TypeError, 'num_token', dict(prompt=dict(type='GatedPrompt', num_token=5))),
    (TypeError, 'gate_init', dict(prompt=dict(type='ShallowPrompt', gate_init=5))),
    (TypeError, 'maximum', dict(temperature=dict(maximum=5))),
    (TypeError, 'prompts', dict(prompts=PROMPT)),
    (KeyError, 'GatePrompt', dict(prompt=dict(type='GatePrompt'))),
    (KeyError, 'type', dict(prompt=dict(num_tokens=5))),
    (KeyError, 'type', dict(prompt={})),
])
def test_a_misspelt_option_raises_naming_it(error, name, options):
    with pytest.raises(error, match=name):
        GatedPromptViT(**{**dict(arch=SMALL, img_size=16, patch_size=8), **options})


def test_the_lists_and_config_dicts_of_a_config_file_are_taken():
    from mmengine.config import ConfigDict
    options = ConfigDict(arch=SMALL, img_size=[16, 24], patch_size=8, out_indices=[0, 2], prompt=PROMPT,
                         temperature=dict(init=2))
    vit = GatedPromptViT(**options)
    assert vit.out_indices == (0, 2)
    assert vit.prompt.gate_prior.shape == (2, )
    assert vit.temperature.tolist() == [2, 2, 2]
    assert options.prompt == PROMPT  # the config is not changed


# --- The registry ---


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
def test_it_is_found_unprefixed_from_either_scope(scope):
    pytest.importorskip(scope)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        models = importlib.import_module(f'{scope}.registry').MODELS
        config = dict(type='GatedPromptViT', arch=SMALL, img_size=16, patch_size=8, prompt=PROMPT)
        with DefaultScope.overwrite_default_scope(scope):
            for registry in (models, MODELS):
                vit = registry.build(config)
                assert type(vit) is GatedPromptViT
                assert vit.prompt.tokens.shape == (2, 8)


@pytest.mark.parametrize('strategy', ['ShallowPrompt', 'DeepPrompt', 'GatedPrompt'])
def test_checkpointing_changes_neither_output_nor_gradient(tiny_vit, strategy):
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        vit = tiny_vit(prompt=config_of(strategy), temperature=True, out_indices=(1, 3), with_cp=with_cp).train()
        torch.manual_seed(1)  # of the dropout of prompts
        outputs = vit(images)
        sum(output.pow(2).sum() for output in outputs).backward()
        results.append([*outputs, *(p.grad for p in vit.parameters() if p.requires_grad)])
    for kept, recomputed in zip(*results):
        assert torch.equal(kept, recomputed)


@pytest.mark.parametrize('out_type, number', [('featmap', 16), ('cls_token', 1), ('mean_prompt', NUM_PROMPTS),
                                              ('mean_all', 16 + NUM_PROMPTS)])
def test_the_last_block_works_out_only_what_is_returned(tiny_vit, out_type, number):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), out_type=out_type)
    seen = []
    for block in vit.blocks:
        block.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    vit(images)
    assert seen == [1 + 16 + NUM_PROMPTS] * 3 + [number]


def test_a_traced_backbone_gives_the_same(tiny_vit, tmp_path):
    vit = tiny_vit(prompt=config_of('GatedPrompt'), temperature=True)
    wanted, = vit(images)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            traced = torch.jit.trace(vit, images, check_trace=False)
        traced.save(tmp_path / 'vit.pt')
        assert torch.equal(torch.jit.load(tmp_path / 'vit.pt')(images)[0], wanted)

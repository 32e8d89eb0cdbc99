"""The prompt strategies by themselves: which prompts does the next block see?"""

import math

import pytest
import torch

from mmseg_gpt.models import DeepPrompt, GatedPrompt, HardGatedPrompt, ShallowPrompt

STRATEGIES = [ShallowPrompt, DeepPrompt, GatedPrompt, HardGatedPrompt]
SIZES = dict(embed_dims=8, num_layers=4, patch_size=4, num_tokens=3)
before, after = torch.randn(2, 2, 3, 8, generator=torch.Generator().manual_seed(1)).unbind()


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_tokens_start_uniform_within_the_bound(strategy):
    tokens = strategy(embed_dims=64, num_layers=4, patch_size=16, num_tokens=200).tokens
    bound = math.sqrt(6 / (3 * 16 * 16 + 64))
    assert tokens.abs().max() <= bound
    assert tokens.abs().max() > 0.99 * bound
    assert tokens.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert tokens.mean().abs() < 0.02 * bound


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_first_gives_each_image_the_same_tokens(strategy):
    prompt = strategy(**SIZES).eval()
    first = prompt.first(2, 5)
    expected = prompt.tokens[2] if strategy is DeepPrompt else prompt.tokens
    assert first.shape == (5, 3, 8)
    assert all(torch.equal(image, expected) for image in first)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_dropout_is_drawn_for_each_image_and_only_in_training(strategy):
    prompt = strategy(embed_dims=64, num_layers=4, num_tokens=100, dropout=0.25)
    first = prompt.train().first(0, 2)
    assert not torch.equal(first[0], first[1])
    assert (first == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    kept = first != 0
    tokens = prompt.tokens[0] if strategy is DeepPrompt else prompt.tokens
    torch.testing.assert_close(first[kept], (tokens / 0.75).expand(2, -1, -1)[kept])
    assert (prompt.eval().first(0, 2) != 0).all()


def test_default_dropout_is_that_of_the_authors():
    assert ShallowPrompt(8, 4).dropout.p == 0.1


def test_only_deep_prompts_drop_out_between_blocks():
    # Dropout is applied once, where prompts enter; deep prompts enter at every block.
    enters_again = {strategy: (strategy(**SIZES, dropout=0.9).train().next(0, before, after) == 0).any().item()
                    for strategy in STRATEGIES}
    assert enters_again == {strategy: strategy is DeepPrompt for strategy in STRATEGIES}


def test_shallow_passes_the_outputs_on():
    prompt = ShallowPrompt(**SIZES)
    assert all(torch.equal(prompt.next(block, before, after), after) for block in range(4))


def test_deep_throws_the_outputs_away_except_the_last():
    prompt = DeepPrompt(**SIZES).eval()
    assert prompt.tokens.shape == (4, 3, 8)
    for block in range(3):
        assert torch.equal(prompt.next(block, before, after), prompt.tokens[block + 1].expand(2, -1, -1))
    assert torch.equal(prompt.next(3, before, after), after)


def test_gates_start_at_the_negated_option():
    # The sign of the authors' code: "GATE INIT. 10" of Table 5 starts the gates almost closed.
    prompt = GatedPrompt(**SIZES, gate_init=10.)
    assert prompt.gate_prior.tolist() == [-10.] * 3
    assert prompt.gate(0).item() == pytest.approx(4.5398e-5, rel=1e-4)
    assert GatedPrompt(**SIZES).gate_prior.tolist() == [-10.] * 3


def test_gated_mixes_before_and_after_by_the_blocks_own_gate():
    prompt = GatedPrompt(**SIZES)
    prompt.gate_prior.data = torch.tensor([-2., 0.5, 3.])
    for block, gamma in enumerate(prompt.gate_prior.tolist()):
        g = 1 / (1 + math.exp(-gamma))
        torch.testing.assert_close(prompt.next(block, before, after), g * after + (1 - g) * before)
    assert torch.equal(prompt.next(3, before, after), after)  # the last block has no gate


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_prompts_are_mixed_in_float32(dtype):
    prompt = GatedPrompt(**SIZES, gate_init=10.)
    mixed = prompt.next(0, before.to(dtype), after.to(dtype))
    assert mixed.dtype == torch.float32
    g = 1 / (1 + math.exp(10))
    exact = before.to(dtype).double() + g * (after.to(dtype).double() - before.to(dtype).double())
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-6, atol=1e-9)
    assert (mixed != before.to(dtype)).all()  # a gate of 4.5e-5 does something ...
    assert (mixed.to(dtype) == before.to(dtype)).double().mean() > 0.8  # ... and would hardly in half precision


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('gate_init', [10., -10.])
def test_half_precision_gates_have_gradients_at_both_ends(dtype, gate_init):
    # sigmoid(10) is exactly 1 in half precision, and its gradient 0.
    prompt = GatedPrompt(**SIZES, gate_init=gate_init).to(dtype)
    prompt.next(1, before.to(dtype), after.to(dtype)).pow(2).sum().backward()
    assert prompt.gate_prior.grad[1] != 0
    assert prompt.gate_prior.grad[[0, 2]].tolist() == [0, 0]


def test_double_precision_is_kept():
    prompt = GatedPrompt(**SIZES).double()
    assert prompt.next(0, before.double(), after.double()).dtype == torch.float64


def test_hard_gates_are_0_or_1_in_evaluation():
    prompt = HardGatedPrompt(**SIZES).eval()
    prompt.gate_prior.data = torch.tensor([-0.01, 0.01, 8.])
    assert [prompt.gate(block).item() for block in range(3)] == [0, 1, 1]
    assert torch.equal(prompt.next(0, before, after), before)
    assert torch.equal(prompt.next(1, before, after), after)


@pytest.mark.parametrize('gamma', [-2., 0., 1.])
@pytest.mark.parametrize('gumbel_temperature', [0.3, 1., 4.])
def test_hard_gates_open_as_often_as_sigmoid_says(gamma, gumbel_temperature):
    prompt = HardGatedPrompt(**SIZES, gate_init=-gamma, gumbel_temperature=gumbel_temperature).train()
    with torch.no_grad():
        drawn = torch.stack([prompt.gate(1) for _ in range(3000)])
    assert set(drawn.tolist()) == {0., 1.}
    assert drawn.mean().item() == pytest.approx(1 / (1 + math.exp(-gamma)), abs=0.03)  # more than 3 sigma


def test_hard_gates_pass_the_gradient_of_the_soft_sample_straight_through():
    prompt = HardGatedPrompt(**SIZES, gate_init=0., gumbel_temperature=2.).double().train()
    torch.manual_seed(3)
    gate = prompt.gate(1)
    gate.backward()
    torch.manual_seed(3)
    u = torch.rand((), dtype=torch.float64)
    soft = torch.sigmoid((u.log() - (1 - u).log()) / 2)
    assert gate.item() in (0, 1)
    assert gate.item() == float(soft > 0.5)
    assert prompt.gate_prior.grad[1].item() == pytest.approx((soft * (1 - soft) / 2).item())
    assert prompt.gate_prior.grad[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('num_tokens', [0, -1])
def test_a_prompt_count_below_1_raises(strategy, num_tokens):
    with pytest.raises(ValueError, match=f'num_tokens must be at least 1, got {num_tokens}'):
        strategy(embed_dims=8, num_layers=4, num_tokens=num_tokens)


@pytest.mark.parametrize('strategy', [GatedPrompt, HardGatedPrompt])
def test_gates_on_a_vit_of_one_block_raise(strategy):
    with pytest.raises(ValueError, match='at least 2 blocks, got 1'):
        strategy(embed_dims=8, num_layers=1)


@pytest.mark.parametrize('gumbel_temperature', [0., -1.])
def test_a_gumbel_temperature_that_is_not_positive_raises(gumbel_temperature):
    with pytest.raises(ValueError, match='gumbel_temperature must be positive'):
        HardGatedPrompt(**SIZES, gumbel_temperature=gumbel_temperature)

"""What is claimed of the cost of a training step, counted at the full size: ViT-B, 512x512, 150 classes, 100 prompts.

Nothing is computed (fake tensors) and no clock is read, so these are the same numbers on every machine.
"""

from pathlib import Path

import pytest

from mmseg_gpt.lab.benchmark.costs import count_costs
from mmseg_gpt.lab.benchmark.variants import Sizes, parse_variant, read_config

CONFIG = Path(__file__).parents[1] / 'configs/setr_pup_gpt_mae_ade20k.py'


@pytest.fixture(scope='module')
def costs() -> dict[str, dict]:
    cfg = read_config(CONFIG)

    def counted(*names: str) -> dict[str, dict]:
        return {name: count_costs(parse_variant(name), cfg, Sizes(), evaluation=False) for name in names}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmseg_gpt.lab.benchmark.costs.kept_bytes', lambda owners, *_: (None, dict.fromkeys(owners, 0)))
        patch.setattr('mmseg_gpt.lab.benchmark.costs.count_work', lambda step: None)
        only_slopes = counted('mmseg-full', 'ours-bf16')  # no more is asked of these, and it takes half of the time
    return only_slopes | counted('paper', 'ours')


def test_all_runs_on_fake_tensors(costs):
    assert {cost['tensors']['train'] for cost in costs.values()} == {'fake'}


@pytest.mark.parametrize('less, more, times', [
    ('ours', 'paper', 4.5), ('ours-bf16', 'paper', 8), ('ours', 'mmseg-full', 4)])
def test_memory_of_an_image(costs, less, more, times):
    assert costs[more]['slope'] >= times * costs[less]['slope']


def test_bytes_that_the_vit_keeps_for_backward(costs):
    assert costs['paper']['kept']['ViT'] >= 4 * costs['ours']['kept']['ViT']


def test_flops_of_a_step(costs):
    assert costs['paper']['train']['flops'] >= 1.16 * costs['ours']['train']['flops']


def test_checkpoint_of_what_is_trained(costs):
    sizes = costs['ours']['checkpoint']
    assert sizes['whole'] >= 11 * sizes['trained']


def test_baselines_are_what_they_always_were(costs):
    # Were the models that are compared to grow, the ratios above would say nothing of ours.
    assert costs['paper']['train']['flops'] / 1e9 == pytest.approx(1157.56, abs=0.01)
    assert costs['paper']['slope'] / 2**20 == pytest.approx(3698.7, rel=0.01)
    assert costs['mmseg-full']['slope'] / 2**20 == pytest.approx(3141, rel=0.01)

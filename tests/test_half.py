"""A frozen ViT in half precision computes what autocast computes, bit for bit, and its files stay float32."""

import copy

import pytest
import torch
from conftest import TINY, randomise
from mmengine.hooks import Hook
from tiny_run import At, differing, run, saved, tiny_config

import mmseg_gpt.engine.runner as runner_module
from mmseg_gpt.adapters import unwrap
from mmseg_gpt.checkpoints import CheckpointError, read_file
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.half import HalfWeights, kept, rounded_weights

BF16 = dict(optim_wrapper__type='Bf16OptimWrapper')
GATED = dict(type='GatedPrompt', num_tokens=3, gate_init=1.)
VITS = {
    'gated prompts': dict(prompt=GATED, temperature=True),
    'DINOv2 with LoRA and biases': dict(layer_scale=True, num_registers=2, biases=True,
                                        lora=dict(rank=2, targets=('attn.qkv', 'mlp.fc1'))),
    'DINOv3 with a bottleneck': dict(layer_scale=True, num_registers=2, rotary='bfloat16', gated_mlp=True,
                                     qkv_bias='qv', adapter=dict(width=4), lora=dict(rank=2), prompt=GATED),
    'checkpointed, normed': dict(with_cp=True, out_type='normed_featmap', prompt=dict(GATED, type='DeepPrompt')),
}
VITS['checkpointed, normed']['prompt'].pop('gate_init')


def frozen_vit(**options) -> GatedPromptViT:
    return randomise(GatedPromptViT(**{**dict(arch=TINY, img_size=32, patch_size=8), **options}))


def step(vit: GatedPromptViT, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs and all gradients of a step under autocast."""
    vit.zero_grad()
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = vit.train()(images)
        loss = sum((output.float()**2).mean() for output in outputs)
    if loss.requires_grad:
        loss.backward()
    return [*outputs, *(p.grad for p in vit.parameters() if p.requires_grad)]


@pytest.mark.parametrize('options', VITS.values(), ids=VITS)
def test_outputs_and_gradients_are_those_of_autocast(options, tmp_path):
    vit = frozen_vit(out_indices=(1, 3), **options)
    other, images = copy.deepcopy(vit), torch.randn(2, 3, 32, 24)
    half = HalfWeights(other, torch.bfloat16, tmp_path)
    expected, found = step(vit, images), step(other, images)
    assert len(expected) == len(found) > 2 and all(map(torch.equal, expected, found))
    kinds = {name: weight.dtype for name, weight in other.named_parameters()}
    assert sum(kind == torch.bfloat16 for kind in kinds.values()) == len(half.originals) > 4 * 4
    assert all(kinds[name] == torch.float32 for name, p in vit.named_parameters() if p.requires_grad or 'norm' in name)


def test_the_originals_are_used_without_autocast(tmp_path):
    vit = frozen_vit()
    other, images = copy.deepcopy(vit).eval(), torch.randn(1, 3, 32, 32)
    half = HalfWeights(other, torch.bfloat16, tmp_path)
    assert torch.equal(other(images)[-1], vit.eval()(images)[-1]) and not half.is_rounded
    half.round()
    assert half.is_rounded and other.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


def test_state_dicts_hold_the_originals_and_loading_ends_it(tmp_path):
    vit = frozen_vit()
    before = copy.deepcopy(vit.state_dict())
    half = HalfWeights(vit, torch.bfloat16, tmp_path)
    assert list(tmp_path.iterdir()) == []  # the file has no name
    assert list(vit.state_dict()) == list(before)
    assert all(map(torch.equal, vit.state_dict().values(), before.values()))
    assert not torch.equal(vit.blocks[0].attn.qkv.weight.float(), before['blocks.0.attn.qkv.weight'])
    other = frozen_vit().state_dict()
    vit.load_state_dict(other)
    assert all(map(torch.equal, vit.state_dict().values(), other.values()))
    half.round()  # what was kept before would be wrong now
    half.release()
    assert all(map(torch.equal, vit.parameters(), other.values())) and not vit._state_dict_hooks
    with pytest.raises(CheckpointError, match='does not fill the backbone'):
        vit.load_state_dict({})


def test_without_a_disk_the_originals_stay_in_memory(tmp_path, log):
    vit = frozen_vit()
    weights = rounded_weights(vit)
    found = kept(weights, tmp_path / 'gone')
    assert list(found) == list(weights) and all(map(torch.equal, found.values(), weights.values()))
    assert any('stay in memory' in record.getMessage() for record in log)


def test_a_vit_that_is_trained_and_float64_stay(tmp_path):
    for vit in (frozen_vit(frozen=False), frozen_vit().double()):
        before = [weight.clone() for weight in vit.parameters()]
        HalfWeights(vit, torch.bfloat16, tmp_path)
        assert all(map(torch.equal, vit.parameters(), before))


# --- whole runs ------------------------------------------------------------------------------------


class Looking(Hook):
    """Notes the types of a linear weight in training and in validation, and the scores."""

    def __init__(self) -> None:
        self.seen, self.metrics = [], {}

    def see(self, runner, phase: str) -> None:
        self.seen.append((phase, unwrap(runner.model).backbone.blocks[0].mlp.fc1.weight.dtype))

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.see(runner, 'train')

    def before_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.see(runner, 'val')

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.metrics = metrics


def test_a_run_is_that_of_autocast_and_goes_on_in_float32(tmp_path, monkeypatch):
    options = dict(BF16, train_cfg__max_iters=4, train_cfg__val_interval=2, custom_hooks=[])
    looking, plain = Looking(), Looking()
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, 'STANDARD_HOOKS', runner_module.STANDARD_HOOKS[:-1])
        run(tiny_config(tmp_path, work_dir=str(tmp_path / 'plain/run'), **options), plain)
    runner = run(tiny_config(tmp_path, **options), looking)
    assert set(plain.seen) == {('train', torch.float32), ('val', torch.float32)}
    assert set(looking.seen) == {('train', torch.bfloat16), ('val', torch.float32)}
    assert differing(saved(tmp_path / 'plain', 4), saved(tmp_path, 4)) == []
    assert looking.metrics == plain.metrics != {}
    assert {p.dtype for p in runner.model.parameters()} == {torch.float32}
    pretrained = torch.load(tmp_path / 'vit.pth')
    state = saved(tmp_path, 2)['state_dict']
    assert all(torch.equal(state[f'backbone.{name}'], weight) for name, weight in pretrained.items())
    # --amp off and on again: as with autocast alone.
    for place in ('plain', '.'):
        resumed = dict(work_dir=str(tmp_path / place / 'other'), load_from=str(tmp_path / place / 'run/iter_2.pth'))
        run(tiny_config(tmp_path, **dict(options, optim_wrapper__type='OptimWrapper'), resume=True, **resumed))
    one, other = (read_file(tmp_path / place / 'other/iter_4.pth') for place in ('plain', '.'))
    assert differing(one, other) == [] and differing(other, saved(tmp_path, 4)) != []


@pytest.mark.parametrize('options', [
    dict(default_hooks__checkpoint__adapter_only=True),
    dict(custom_hooks=[dict(type='EMAHook')]),
    pytest.param(dict(model__backbone__frozen=False), marks=pytest.mark.slow),
], ids=['adapter-only', 'EMA', 'full fine-tuning'])
def test_what_else_is_saved(tmp_path, monkeypatch, options):
    options = dict(BF16, train_cfg__max_iters=2, **options)
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, 'STANDARD_HOOKS', runner_module.STANDARD_HOOKS[:-1])
        run(tiny_config(tmp_path, work_dir=str(tmp_path / 'plain/run'), **options))
    kinds = []
    run(tiny_config(tmp_path, **options), At(2, lambda runner, _: kinds.append(
        unwrap(runner.model).backbone.blocks[0].mlp.fc1.weight.dtype)))
    adapter_only = 'default_hooks__checkpoint__adapter_only' in options
    assert kinds == [torch.bfloat16 if adapter_only else torch.float32]
    one, other = saved(tmp_path / 'plain', 2), saved(tmp_path, 2)
    assert one['meta'].get('frozen') == other['meta'].get('frozen') and adapter_only == ('frozen' in one['meta'])
    assert differing(one, other) == []

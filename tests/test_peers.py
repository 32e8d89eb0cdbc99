"""LoRA and bias-only tuning: what is trained, what is computed, and that checkpoints are whole."""

import pytest
import torch
from conftest import TINY
from mmengine.registry import MODELS
from torch.nn import functional as F

from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.models import BiasTunedViT, GatedPromptViT, LoRAViT

SIZE = dict(arch=TINY, img_size=32, patch_size=8)


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def copy_of(vit: GatedPromptViT, kind: type, **options) -> GatedPromptViT:
    """Another ViT with the same weights."""
    other = kind(**SIZE, **options).double()
    with torch.no_grad():
        for name, parameter in other.vit_state().items():
            parameter.copy_(vit.vit_state()[name])
    return other.train()


@pytest.fixture
def vit() -> GatedPromptViT:
    return GatedPromptViT(**SIZE).double().train()


@pytest.mark.parametrize('kind', [LoRAViT, BiasTunedViT])
def test_it_begins_as_the_pretrained_vit(kind, vit):
    torch.testing.assert_close(copy_of(vit, kind)(images())[0], vit(images())[0], rtol=0, atol=0)


@pytest.mark.parametrize('kind, own', [(LoRAViT, '.lora_'), (BiasTunedViT, '.bias')])
def test_only_its_own_parameters_are_trained(kind, own):
    model = kind(**SIZE)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if own in name}
    assert model.vit_state().keys() == GatedPromptViT(**SIZE).vit_state().keys()


def test_lora_adds_a_scaled_product_of_two_matrices(vit):
    model = copy_of(vit, LoRAViT, targets=('attn.qkv', 'mlp.fc1'), rank=2, alpha=6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith('.lora_b'):
                parameter.normal_(generator=torch.Generator().manual_seed(0))
        for name, weight in vit.vit_state().items():
            if name.endswith(('attn.qkv.weight', 'mlp.fc1.weight')):
                layer = model.get_submodule(name.removesuffix('.weight'))
                weight += 6 / 2 * layer.lora_b @ layer.lora_a
    torch.testing.assert_close(model(images())[0], vit(images())[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('kind', [LoRAViT, BiasTunedViT])
def test_steps_change_what_is_trained(kind):
    model = kind(**SIZE).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.)
    for _ in range(2):  # in LoRA's first step only one of the two matrices has a gradient
        loss = F.mse_loss(model(images().float())[0], torch.ones(2, 32, 4, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    # Key biases change no attention, and blocks after the last output have none to change.
    assert len(changed) > 0.9 * len(trained)


@pytest.mark.parametrize('kind', [LoRAViT, BiasTunedViT])
def test_its_checkpoints_are_whole_and_loaded_strictly(kind, tmp_path):
    model, other = kind(**SIZE), kind(**SIZE)
    torch.nn.init.normal_(next(p for p in model.parameters() if p.requires_grad))
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(images().float())[0], model(images().float())[0], rtol=0, atol=0)
    with pytest.raises(CheckpointError, match='fill the backbone'):
        other.load_state_dict({k: v for k, v in model.state_dict().items() if 'blocks.1.norm1' not in k}, strict=False)


def test_lora_loads_a_pretrained_vit(tmp_path, vit):
    torch.save(dict(state_dict=vit.float().state_dict()), tmp_path / 'vit.pth')
    init = dict(type='PretrainedViT', checkpoint=str(tmp_path / 'vit.pth'))
    model = MODELS.build(dict(type='LoRAViT', init_cfg=init, frozen=True, **SIZE))  # configs of SETR say frozen
    model.init_weights()
    assert model.frozen
    for name, weight in model.vit_state().items():
        torch.testing.assert_close(weight, vit.vit_state()[name], rtol=0, atol=0)


@pytest.mark.parametrize('options, message', [(dict(targets=('qvk', )), 'ends in qvk'), (dict(rank=0), 'rank')])
def test_what_lora_cannot_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LoRAViT(**SIZE, **options)

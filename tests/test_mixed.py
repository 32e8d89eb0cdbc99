"""Images of several tasks go through one ViT in one pass, and get what each task's model alone gives."""

import pytest
import torch

from mmseg_gpt.models import GatedPrompt, GatedPromptViT, LoRAViT
from mmseg_gpt.models.mixed import adapter_state, one_pass, program
from mmseg_gpt.recipes.methods import METHODS, options

ARCH = dict(embed_dims=16, num_layers=3, num_heads=2, mlp_ratio=2)
FROZEN = [name for name, row in METHODS.items() if row.frozen]
OUTPUTS = dict(segmentation=dict(out_type='featmap', out_indices=(0, 2)), classification=dict(out_type='mean_all'),
               normed=dict(out_type='normed_featmap'))


def backbones(number: int, **settings) -> list[GatedPromptViT]:
    """Backbones that share one ViT, each with adapters of its own that have an effect; float64."""
    torch.manual_seed(0)
    settings = dict(arch=ARCH, img_size=32, patch_size=8) | settings
    vits = [GatedPromptViT(**settings).double().eval() for _ in range(number)]
    for vit in vits[1:]:
        for name, weight in vits[0].vit_state().items():
            vit.get_parameter(name).data = weight.data
        vit.pos_embed = vits[0].pos_embed
    for vit in vits:
        for name, value in adapter_state(vit).items():
            value.data = torch.rand_like(value) * 2 + 0.2 if name == 'temperature' else torch.randn_like(value)
    return vits


@pytest.mark.parametrize('output', OUTPUTS)
@pytest.mark.parametrize('method', FROZEN)
def test_one_pass_gives_each_image_what_its_task_alone_gives(method, output):
    vits = backbones(3, **options(method, 4, 0.), **OUTPUTS[output])
    assert len({str(program(vit)) for vit in vits}) == 1
    images = torch.randn(5, 3, 27, 40, dtype=torch.float64)  # another grid than that of the position embedding
    before = {name: value.clone() for name, value in vits[0].state_dict().items()}
    rows = [vits[0], vits[2], vits[0], vits[1], vits[2]]
    together = one_pass(rows, images)
    alone = []
    with torch.no_grad():
        for vit, image in zip(rows, images):
            alone.append(vit(image[None]))
        others = vits[1](images[:1])
    for place, found in enumerate(together):
        expected = torch.cat([each[place] for each in alone])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert (method == 'linear') == torch.allclose(found[:1], others[place])  # the tasks do differ
    assert all(torch.equal(value, before[name]) for name, value in vits[0].state_dict().items())


@pytest.mark.parametrize('settings', [
    dict(num_registers=2, layer_scale=True, rotary='float32', qkv_bias='qv', gated_mlp=True, biases=True,
         lora=dict(rank=2, targets=('attn.qkv', 'mlp.fc2')), adapter=dict(width=3)),
    dict(start_block=1, out_type='cls_token', prompt=dict(type='DeepPrompt', num_tokens=2)),
    dict(start_block=2, out_type='mean_prompt', prompt=dict(type='HardGatedPrompt', num_tokens=2), biases=True),
], ids=['DINOv3 with all updates', 'deep from block 1', 'hard gates from block 2'])
def test_one_pass_knows_all_options_of_the_backbone(settings):
    vits = backbones(2, **settings)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.cat([vit(image[None])[0] for vit, image in zip(vits, images)])
    torch.testing.assert_close(one_pass(vits, images)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('method', ['lora-gpt', 'bias', 'adaptformer'])
def test_in_bfloat16_the_rounding_is_that_of_autocast(method):
    vits = [vit.float() for vit in backbones(2, **options(method, 4, 0.))]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        expected = torch.cat([vit(image[None])[0] for vit, image in zip(vits, images)])
        found = one_pass(vits, images)[0]
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


def test_what_cannot_go_through_together_has_another_program():
    prompt = dict(type='GatedPrompt', num_tokens=4)
    usual = dict(prompt=prompt, temperature=True, lora=dict(rank=2))
    changes = [dict(prompt=dict(prompt, num_tokens=5)), dict(prompt=dict(type='ShallowPrompt', num_tokens=4)),
               dict(prompt=None), dict(start_block=1), dict(temperature=False), dict(temperature=dict(max=3.)),
               dict(lora=dict(rank=3)), dict(lora=dict(rank=2, alpha=2)), dict(lora=None), dict(biases=True),
               dict(adapter=dict(width=2)), dict(out_type='cls_token'), dict(out_indices=(1, )), dict(norm_eps=1e-5),
               dict(arch=dict(ARCH, num_heads=4)), dict(qkv_bias='qv'), dict(img_size=(16, 64))]
    first, *others = (backbones(1, **{**usual, **change})[0] for change in [{}, *changes])
    for change, other in zip(changes, others):
        other.pos_embed = first.pos_embed
        differ = [name for name, value in program(first).items() if value != program(other)[name]]
        assert differ and (len(differ) == 1 or change == dict(prompt=None)), (change, differ)
    assert program(backbones(1, **usual)[0])['position embedding'] != program(first)['position embedding']


def test_a_class_that_nobody_knows_here_goes_alone():

    class OtherPrompt(GatedPrompt):
        pass

    vit = backbones(1, prompt=dict(type='GatedPrompt', num_tokens=2))[0]
    vit.prompt.__class__ = OtherPrompt
    assert program(vit) is None
    assert program(LoRAViT(arch=ARCH, img_size=32, patch_size=8)) is not None


def test_a_backbone_can_be_used_while_a_pass_runs():
    """As by another thread, which labels an image in tiles."""
    vits, images = backbones(2, prompt=dict(type='GatedPrompt', num_tokens=4), temperature=True, lora=dict(rank=2)), (
        torch.randn(2, 3, 32, 32, dtype=torch.float64))
    with torch.no_grad():
        expected = torch.cat([vit(image[None])[0] for vit, image in zip(vits, images)])
    seen = []

    def use(*_: object) -> None:
        handle.remove()
        seen.append(vits[0](images[:1])[0])

    handle = vits[0].blocks[1].register_forward_hook(use)
    torch.testing.assert_close(one_pass(vits, images)[0], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(seen[0], expected[:1])

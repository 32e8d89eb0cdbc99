"""The plain ViT under the prompts: patches, attention with a temperature, position embedding, timm's ViT."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.cpu_attention import attend
from mmseg_gpt.models.vit import Attention, PatchEmbed, resize_pos_embed


@pytest.mark.parametrize('height, width, grid', [(8, 12, (2, 3)), (7, 9, (2, 3)), (1, 1, (1, 1)), (9, 4, (3, 1))])
def test_patches_of_an_image_padded_with_zeros_at_the_bottom_and_right(height, width, grid):
    embed = PatchEmbed(4, 6).double()
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    tokens, actual_grid = embed(images)
    assert actual_grid == grid
    assert tokens.shape == (2, grid[0] * grid[1], 6)

    padded = torch.zeros(2, 3, grid[0] * 4, grid[1] * 4, dtype=torch.float64)
    padded[..., :height, :width] = images
    for row in range(grid[0]):
        for column in range(grid[1]):
            patch = padded[..., row * 4:row * 4 + 4, column * 4:column * 4 + 4]
            expected = patch.flatten(1) @ embed.proj.weight.flatten(1).T + embed.proj.bias
            torch.testing.assert_close(tokens[:, row * grid[1] + column], expected, rtol=1e-12, atol=1e-12)


def explicit_attention(attention: Attention, x: torch.Tensor, tau: float) -> torch.Tensor:
    """softmax(q k^T / sqrt(d) / tau) v, head by head."""
    q, k, v = (x @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)
    d = x.shape[-1] // attention.num_heads
    heads = []
    for q_, k_, v_ in zip(q.split(d, -1), k.split(d, -1), v.split(d, -1)):
        score = (q_ @ k_.mT / math.sqrt(d) / tau).exp()
        heads.append(score / score.sum(-1, keepdim=True) @ v_)
    return torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias


@pytest.mark.parametrize('tau', [None, 1., 0.01, 0.3, 10.])
@pytest.mark.parametrize('num_heads', [1, 4])
def test_attention_divides_the_score_by_the_temperature(tau, num_heads):
    attention = Attention(16, num_heads).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    actual = attention(x, None if tau is None else torch.tensor(tau, dtype=torch.float64))
    torch.testing.assert_close(actual, explicit_attention(attention, x, tau or 1.), rtol=1e-12, atol=1e-12)


def test_temperature_1_equals_no_temperature():
    attention = Attention(16, 4)
    x = torch.randn(2, 7, 16)
    assert torch.equal(attention(x, torch.tensor(1.)), attention(x))


def test_a_high_temperature_makes_attention_uniform_and_a_low_one_sharp():
    attention = Attention(16, 1).double()
    x = 3 * torch.randn(1, 9, 16, dtype=torch.float64)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    uniform = attention.proj(v.mean(1, keepdim=True).expand(-1, 9, -1))
    torch.testing.assert_close(attention(x, torch.tensor(1e9)), uniform, rtol=1e-6, atol=1e-6)
    nearest = attention.proj(v[:, (q @ k.mT)[0].argmax(-1)])
    torch.testing.assert_close(attention(x, torch.tensor(1e-9)), nearest)


@pytest.mark.parametrize('new_grid', [(2, 3), (9, 4), (3, 8)])
def test_pos_embed_is_resized_as_an_image_and_keeps_its_cls_entry(new_grid):
    pos_embed = torch.randn(1, 1 + 4 * 5, 6)
    resized = resize_pos_embed(pos_embed, (4, 5), new_grid)
    assert resized.shape == (1, 1 + new_grid[0] * new_grid[1], 6)
    assert torch.equal(resized[:, 0], pos_embed[:, 0])
    for channel in range(6):
        image = pos_embed[0, 1:, channel].reshape(1, 1, 4, 5)
        expected = F.interpolate(image, new_grid, mode='bicubic', align_corners=False)
        torch.testing.assert_close(resized[0, 1:, channel].reshape(expected.shape), expected)


def test_pos_embed_of_the_same_grid_is_left_alone_and_of_a_turned_one_is_not():
    pos_embed = torch.randn(1, 1 + 2 * 6, 3)
    assert resize_pos_embed(pos_embed, (2, 6), (2, 6)) is pos_embed
    assert not torch.equal(resize_pos_embed(pos_embed, (2, 6), (6, 2)), pos_embed)  # same shape, another grid


@pytest.mark.parametrize('out_type, global_pool', [('cls_token', 'token'), ('mean_patch', 'avg')])
def test_same_names_and_same_numbers_as_timm(tiny_vit, out_type, global_pool):
    timm = pytest.importorskip('timm.models.vision_transformer')
    theirs = timm.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=0, global_pool=global_pool,
        fc_norm=False).double().eval()
    ours = tiny_vit(out_type=out_type)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    tokens = theirs.forward_features(images)  # normed
    torch.testing.assert_close(ours.norm(ours.embed(images)[0]), theirs.norm(
        theirs._pos_embed(theirs.patch_embed(images))), rtol=1e-12, atol=1e-12)
    # timm norms and then pools; our mean_patch pools and then norms, as the authors do.
    if out_type == 'mean_patch':
        hidden = []
        theirs.norm.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
        theirs.forward_features(images)
        expected = theirs.norm(hidden[0][:, 1:].mean(dim=1))
    else:
        expected = tokens[:, 0]
    torch.testing.assert_close(ours(images)[0], expected, rtol=1e-12, atol=1e-12)


def test_a_part_from_timm_is_merged_before_it_is_loaded(tiny_vit):
    timm = pytest.importorskip('timm.models.vision_transformer')
    theirs = timm.VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=4, num_classes=0)
    ours = tiny_vit(out_type='cls_token', prompt=dict(type='GatedPrompt', num_tokens=2), temperature=True)
    part = theirs.state_dict()
    with pytest.raises(CheckpointError, match=r'missing \(3\): temperature, prompt.tokens, prompt.gate_prior'):
        ours.load_state_dict(part, strict=False)
    ours.load_state_dict({**ours.state_dict(), **part})
    assert all(torch.equal(ours.get_parameter(name), value.double()) for name, value in part.items())
    assert set(ours.vit_state()) == set(part)


@pytest.mark.parametrize('mlp_ratio, hidden', [(2, 16), (3.5, 28), (None, 32)])
def test_the_mlp_is_as_wide_as_its_ratio_says(mlp_ratio, hidden):
    arch = dict(embed_dims=8, num_layers=1, num_heads=2) | (dict(mlp_ratio=mlp_ratio) if mlp_ratio else {})
    assert GatedPromptViT(arch=arch).blocks[0].mlp.fc1.weight.shape == (hidden, 8)


@pytest.mark.parametrize('arch, patch_size, millions, depth', [
    ('small', 16, 21.665664, 12), ('base', 16, 85.798656, 12), ('large', 16, 303.301632, 24),
    ('huge', 14, 630.7648, 32)])
def test_parameter_counts_are_those_of_timm(arch, patch_size, millions, depth):
    with torch.device('meta'):
        vit = GatedPromptViT(arch=arch, patch_size=patch_size, out_type='cls_token')
    assert sum(p.numel() for p in vit.parameters()) == round(millions * 1e6)
    assert len(vit.blocks) == depth
    # A head is 64 wide in all released ViTs but ViT-H, where it is 80.
    assert vit.blocks[0].attn.qkv.in_features // vit.blocks[0].attn.num_heads == (80 if arch == 'huge' else 64)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.cuda)])
def test_temperature_divides_a_half_precision_query_in_float32(monkeypatch, device):
    """CUDA would otherwise round the temperature to bfloat16, 1.02 to 1.0234, before it divides."""
    queries = []
    monkeypatch.setattr('mmseg_gpt.models.vit.attend',
                        lambda q, *others, fused: queries.append(q) or attend(q, *others, fused=fused))
    attention = Attention(16, 2).to(device, torch.bfloat16)
    x = torch.randn(1, 50, 16, device=device, dtype=torch.bfloat16)
    attention(x)
    attention(x, torch.tensor(1.02, device=device))
    plain, divided = queries
    assert divided.dtype == torch.bfloat16 and torch.equal(divided, (plain.float() / 1.02).bfloat16())

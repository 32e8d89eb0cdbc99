"""What DINOv2 adds to the ViT: LayerScale, registers, patches of 14 pixels, and configs of it."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from test_configs import BACKBONES, build, swapped

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.models import GatedPromptViT

images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
PROMPT = dict(type='GatedPrompt', num_tokens=3)


def silenced(vit: GatedPromptViT) -> GatedPromptViT:
    """Blocks that do nothing, so that each token comes out where and as it went in."""
    for block in vit.blocks:
        for scale in (block.ls1, block.ls2):
            torch.nn.init.zeros_(scale.gamma)
    return vit


@pytest.mark.parametrize('prompt', [None, PROMPT])
@pytest.mark.parametrize('out_type', ['featmap', 'cls_token', 'mean_patch', 'mean_prompt', 'mean_all'])
def test_registers_are_in_no_output(out_type, prompt, tiny_vit):
    if out_type == 'mean_prompt' and not prompt:
        return
    vit = silenced(tiny_vit(layer_scale=True, num_registers=4, prompt=prompt, out_type=out_type))
    before, = vit(images)
    vit.reg_token.data.fill_(1e6)
    assert torch.equal(vit(images)[0], before)
    plain = tiny_vit(layer_scale=True, prompt=prompt, out_type=out_type)
    state = {k: v for k, v in vit.state_dict().items() if k != 'reg_token'}
    plain.load_state_dict(state)
    assert torch.equal(plain(images)[0], before)


def test_registers_are_attended_to_and_stand_after_cls_without_a_position(tiny_vit):
    vit = tiny_vit(layer_scale=True, num_registers=4)
    tokens, grid = vit.embed(images)
    plain = {k: v for k, v in vit.state_dict().items() if k != 'reg_token'}
    without = tiny_vit(layer_scale=True)
    without.load_state_dict(plain)
    expected, _ = without.embed(images)
    assert grid == (4, 4) and tokens.shape == (2, 1 + 4 + 16, 32) and vit.first_patch == 5
    assert torch.equal(tokens[:, :1], expected[:, :1]) and torch.equal(tokens[:, 5:], expected[:, 1:])
    assert torch.equal(tokens[:, 1:5], vit.reg_token.expand(2, -1, -1))
    assert (vit(images)[0] - without(images)[0]).abs().max() > 1e-3


def test_layer_scale_scales_what_a_block_adds(tiny_vit):
    scaled, plain = tiny_vit(layer_scale=True).blocks[0], tiny_vit().blocks[0]
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if 'gamma' not in k})
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    attended = x + scaled.ls1.gamma * plain.attn(plain.norm1(x))
    expected = attended + scaled.ls2.gamma * plain.mlp(plain.norm2(attended))
    torch.testing.assert_close(scaled(x), expected, rtol=1e-13, atol=1e-13)


def test_without_them_names_and_order_of_the_weights_are_what_they_were(tiny_vit):
    names = list(tiny_vit(out_type='cls_token').state_dict())
    assert names[:5] == ['cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias',
                         'blocks.0.norm1.weight']
    assert len(names) == 4 + 12 * 4 + 2 and not any('.ls' in name or 'reg' in name for name in names)


@pytest.mark.parametrize('frozen', [True, False])
def test_they_are_frozen_with_the_vit(frozen, tiny_vit):
    vit = tiny_vit(layer_scale=True, num_registers=4, frozen=frozen, prompt=PROMPT, temperature=True).train()
    names = ('reg_token', 'blocks.0.ls1.gamma', 'blocks.3.ls2.gamma')
    assert all(name in vit.vit_state() for name in names)
    before = copy.deepcopy(vit.state_dict())
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.01, weight_decay=0.1)
    vit(images)[0].pow(2).sum().backward()
    optimizer.step()
    assert [torch.equal(vit.get_parameter(name), before[name]) for name in names] == [frozen] * 3
    assert not torch.equal(vit.prompt.tokens, before['prompt.tokens'])


# --- The configs ---

DINOV2 = [name for name in BACKBONES if name.startswith('dinov2')]


def config(backbone: str, folder: Path) -> Config:
    """The main config with this backbone."""
    return find_config(str(swapped(folder, backbone)))


def test_there_is_a_config_of_each_size():
    assert DINOV2 == ['dinov2_b', 'dinov2_l', 'dinov2_reg_b', 'dinov2_reg_l', 'dinov2_reg_s', 'dinov2_s']


@pytest.mark.parametrize('name', DINOV2)
def test_one_line_makes_the_backbone_dinov2(name, tmp_path):
    cfg = config(name, tmp_path)
    with torch.device('meta'):
        vit = build(cfg).backbone
    width, depth = {'s': (384, 12), 'b': (768, 12), 'l': (1024, 24)}[name[-1]]
    assert (vit.arch['embed_dims'], vit.arch['num_layers'], vit.grid) == (width, depth, (37, 37))
    assert 'blocks.0.ls1.gamma' in vit.vit_state()
    assert ('reg_token' in vit.vit_state()) == ('reg' in name)
    assert f'vit{name[-1]}14' in cfg.model.backbone.init_cfg.checkpoint
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]  # what is not named stays
    assert all(side % 14 == 0 for side in (*cfg.model.data_preprocessor.size, *cfg.model.test_cfg.crop_size))


def small(cfg: Config) -> Config:
    """The config in small: 2 patches fewer pixels than patches in a crop, as 512 of 518 are."""
    cfg.model.backbone.update(arch=dict(embed_dims=24, num_layers=12, num_heads=2, mlp_ratio=2), img_size=70)
    for head in [cfg.model.decode_head, *cfg.model.auxiliary_head]:
        head.update(in_channels=24, channels=8)
    cfg.model.data_preprocessor.size = (70, 70)
    cfg.model.test_cfg.update(crop_size=(70, 70), stride=(46, 46))
    return cfg


def batch(height: int, width: int) -> dict:
    from mmseg.structures import SegDataSample
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, height, width))))
    sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width)))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return dict(inputs=[image, image], data_samples=[sample, copy.deepcopy(sample)])


@pytest.mark.parametrize('name', ['dinov2_b', 'dinov2_reg_b'])
def test_it_trains_and_predicts_with_maps_that_lie_over_the_pixels(name, tmp_path):
    model = build(small(config(name, tmp_path)))
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-2:]))
    data = model.data_preprocessor(batch(64, 64), training=True)
    assert data['inputs'].shape == (2, 3, 70, 70)
    label = data['data_samples'][0].gt_sem_seg.data
    assert label.shape == (1, 70, 70) and (label[:, 64:] == 255).all() and (label[:, :, 64:] == 255).all()
    losses = model.train().forward(**data, mode='loss')
    loss = sum(value for key, value in losses.items() if 'loss' in key)
    loss.backward()
    assert torch.isfinite(loss) and model.backbone.prompt.tokens.grad.abs().sum() > 0

    model.eval()
    for height, width in ((64, 64), (64, 91), (33, 130), (70, 71)):
        seen.clear()
        with torch.no_grad():
            prediction, _ = model.test_step(batch(height, width))
        assert prediction.pred_sem_seg.data.shape == (1, height, width)
        # Every window is whole patches, so none is padded out of place.
        assert seen and all(side % 14 == 0 for size in seen for side in size)

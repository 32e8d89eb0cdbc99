"""Heads, ViTs and data are swapped by a line each, and what follows from them is filled in."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from test_configs import CONFIGS, HEADS, build, swapped
from torch import nn

from mmseg_gpt.engine.config import find_config
from mmseg_gpt.models.complete import complete, explicit

ARCH = dict(embed_dims=24, num_layers=12, num_heads=2, mlp_ratio=2)
MAIN = CONFIGS / 'setr_pup_gpt_mae_ade20k.py'
TAPS = {'setr_pup': {12: (4, 8, 11), 24: (9, 14, 19, 23), 32: (12, 19, 26, 31)},
        'upernet': {12: (3, 5, 7, 11), 24: (7, 11, 15, 23), 32: (10, 15, 20, 31)},
        'linear_4': {12: (8, 9, 10, 11), 24: (20, 21, 22, 23), 32: (28, 29, 30, 31)}}


def settings(**changes) -> ConfigDict:
    """A model whose head says nothing that follows from the rest."""
    return ConfigDict(dict(
        type='LeanEncoderDecoder', backbone=dict(type='GatedPromptViT', arch=ARCH), decode_head=dict(type='FCNHead'),
        num_classes=5) | changes)


# --- what is filled in ---


def test_widths_classes_and_outputs_are_filled_in():
    model = complete(settings(
        backbone=dict(type='GatedPromptViT', arch=ARCH, out_indices=(1, 5, 11)),
        decode_head=dict(type='UPerHead', in_index=[0, 2]), auxiliary_head=dict(type='FCNHead', channels=8)))
    assert model.decode_head == dict(type='UPerHead', in_index=[0, 2], in_channels=[24, 24], channels=24, num_classes=5)
    assert model.auxiliary_head == [
        dict(type='FCNHead', channels=8, in_index=i, in_channels=24, num_classes=5) for i in (0, 1)]
    assert 'num_classes' not in model


def test_what_is_said_stays_and_what_is_given_is_not_changed():
    said = settings(decode_head=dict(type='FCNHead', in_channels=7, channels=3, num_classes=5))
    before = copy.deepcopy(said)
    assert complete(said).decode_head == before.decode_head and said == before
    whole = complete(settings())
    assert complete(whole) == whole


@pytest.mark.parametrize('kind', ['GatedPromptViT', 'LoRAViT', 'mmengine.BiasTunedViT'])
def test_the_width_of_any_vit_of_ours_is_known(kind):
    assert complete(settings(backbone=dict(type=kind))).decode_head.in_channels == 768


@pytest.mark.parametrize('patch, window', [(16, 512), (14, 518)])
def test_windows_are_whole_patches(patch, window):
    model = complete(settings(backbone=dict(type='GatedPromptViT', patch_size=patch), crop_size=(512, 512),
                              data_preprocessor=dict(pad_val=0), test_cfg=dict(mode='slide')))
    assert model.data_preprocessor == dict(pad_val=0, size=(window, window)) | (
        dict(test_cfg=dict(size_divisor=patch)) if window > 512 else {})
    assert model.backbone.img_size == window
    assert model.test_cfg == dict(mode='slide', crop_size=(window, window), stride=(2 * window // 3, ) * 2)
    model = complete(settings(backbone=dict(type='GatedPromptViT', patch_size=patch), crop_size=(512, 512),
                              data_preprocessor=dict(), test_cfg=dict(mode='whole')))
    assert model.data_preprocessor.test_cfg == dict(size_divisor=patch)  # else maps would be stretched over the images
    oblong = complete(settings(backbone=dict(type='GatedPromptViT', patch_size=14), crop_size=(512, 1024),
                               data_preprocessor=dict(pad_val=0)))
    assert oblong.backbone.img_size == oblong.data_preprocessor.size == (518, 1036) and 'test_cfg' not in oblong


def test_the_pixels_that_a_vit_knows_go_into_the_preprocessor():
    model = complete(settings(backbone=dict(type='GatedPromptViT', mean=[1.] * 3, std=[2.] * 3),
                              data_preprocessor=dict(mean=[0.] * 3)))
    assert model.data_preprocessor == dict(mean=[1.] * 3, std=[2.] * 3) and 'mean' not in model.backbone


@pytest.mark.parametrize('changes, words', [
    (dict(backbone=dict(type='ViT of nobody')), ('model.decode_head.in_channels is missing', )),
    (dict(num_classes=None), ('model.decode_head.num_classes', 'model.num_classes')),
    (dict(decode_head=dict(num_classes=9)), ('model.decode_head.num_classes is 9', 'model.num_classes is 5')),
    (dict(auxiliary_head=[dict(in_index=0), dict(num_classes=4)]), ('model.auxiliary_head.1.num_classes is 4', )),
    (dict(backbone=dict(type='ResNet')), ('model.decode_head.in_channels is missing', 'GatedPromptViT')),
    (dict(neck=dict(type='MultiLevelNeck')), ('model.decode_head.in_channels is missing', 'neck')),
    (dict(backbone=dict(type='GatedPromptViT', arch='huge', out_indices={12: (11, ), 24: (23, )})),
     ('12 or 24 blocks', 'has 32', 'out_indices')),
    (dict(backbone=dict(type='GatedPromptViT', arch=ARCH | dict(num_layers=3), out_indices=(-4, -1))),
     ('out_indices is (-4, -1)', '3 blocks')),
])
def test_what_does_not_follow_or_contradicts_is_said(changes, words):
    with pytest.raises(ValueError) as raised:
        complete(settings(**changes))
    assert all(word in str(raised.value) for word in words)


def test_a_head_for_borders_has_classes_of_its_own():
    border = dict(type='STDCHead', num_classes=2, boundary_threshold=0.1, in_index=0)
    assert complete(settings(auxiliary_head=[border])).auxiliary_head[0].num_classes == 2


def test_a_tool_says_which_config_contradicts_itself(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = ["{MAIN}"]\nmodel = dict(decode_head=dict(num_classes=9))')
    with pytest.raises(SystemExit, match=r'child\.py: model\.decode_head\.num_classes is 9'):
        find_config(str(path))


def test_a_config_that_leaves_the_vit_out_is_refused(tmp_path):
    path = swapped(tmp_path)
    text = path.read_text()
    for without in (text.replace('**_base_.vit, ', ''), text.replace(f"    '{CONFIGS}/_base_/heads/setr_pup.py',\n", '')
                    .replace('**_base_.vit, ', '')):
        path.write_text(without)
        with pytest.raises(SystemExit, match=r'swapped\.py: a base names a ViT.*\*\*_base_\.vit'):
            find_config(str(path))


def test_one_line_on_top_of_a_config_changes_the_classes_of_all_heads(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = ["{MAIN}"]\nmodel = dict(num_classes=9)')
    model = find_config(str(path)).model
    assert [head.num_classes for head in (model.decode_head, *model.auxiliary_head)] == [9, 9, 9]


# --- one line swaps ---


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('backbone', ['mae_b', 'dinov2_s', 'mae_l', 'dinov3_s', 'dinov3_hplus'])
def test_one_line_swaps_the_vit_and_one_the_head(backbone, head, tmp_path):
    cfg = find_config(str(swapped(tmp_path, backbone, head)))
    assert not cfg.keys() & {'vit', 'num_classes', 'crop_size'}
    with torch.device('meta'):
        model = build(cfg)
    width, depth = {'mae_b': (768, 12), 'dinov2_s': (384, 12), 'mae_l': (1024, 24), 'dinov3_s': (384, 12),
                    'dinov3_hplus': (1280, 32)}[backbone]
    assert (model.backbone.arch['embed_dims'], model.backbone.arch['num_layers']) == (width, depth)
    assert model.backbone.out_indices == TAPS.get(head, {}).get(depth, (depth - 1, ))
    heads = [model.decode_head, *(model.auxiliary_head if isinstance(getattr(model, 'auxiliary_head', None),
                                                                    nn.ModuleList) else [])]
    assert {h.num_classes for h in heads} == {150}
    assert {channels // 4 if head == 'linear_4' else channels for h in heads for channels in (
        h.in_channels if isinstance(h.in_channels, list) else [h.in_channels])} == {width}
    assert cfg.model.test_cfg.crop_size == ((518, 518) if backbone == 'dinov2_s' else (512, 512))


def test_openmmlab_builds_from_the_file_what_our_tools_build(tmp_path):
    for head in HEADS:
        raw = Config.fromfile(swapped(tmp_path, 'mae_b', head))
        assert 'num_classes' in raw.model and 'in_channels' not in raw.model.decode_head
        with torch.device('meta'):
            theirs, ours = build(raw), build(explicit(raw))
        shapes = [{name: weight.shape for name, weight in model.state_dict().items()} for model in (theirs, ours)]
        assert shapes[0] == shapes[1]
        assert theirs.test_cfg == ours.test_cfg
        assert Config.fromstring(raw.pretty_text, '.py').model == raw.model


def small(folder: Path, backbone: str, head: str) -> Path:
    """Writes the main config with other bases: a ViT narrowed to 24, and a dataset of 9 classes and 64 pixels."""
    (folder / 'own.py').write_text(
        f'_base_ = ["{CONFIGS}/_base_/datasets/ade20k.py"]\nnum_classes = 9\ncrop_size = (64, 64)')
    path = swapped(folder, backbone, head)
    path.write_text(path.read_text().replace('**_base_.vit', f'**dict(_base_.vit, arch={ARCH!r})').replace(
        f'{CONFIGS}/_base_/datasets/ade20k.py', 'own.py'))
    return path


@pytest.mark.parametrize('backbone, window', [('mae_b', 64), ('dinov2_reg_s', 70), ('dinov3_splus', 64)])
@pytest.mark.parametrize('head', HEADS)
def test_it_trains_and_predicts_in_sliding_windows(head, backbone, window, tmp_path):
    from mmseg.structures import SegDataSample
    torch.manual_seed(0)
    model = build(Config.fromfile(small(tmp_path, backbone, head)))
    assert model.test_cfg.crop_size == (window, window) and model.num_classes == 9

    def batch(height: int, width: int) -> dict:
        labels = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 9, (1, height, width)))) for _ in range(2)]
        for sample in labels:
            sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width)))
        return dict(inputs=list(torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)), data_samples=labels)

    losses = model.train().forward(**model.data_preprocessor(batch(64, 64), training=True), mode='loss')
    loss = sum(value for key, value in losses.items() if 'loss' in key)
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in model.named_parameters() if (p.grad is not None) != p.requires_grad] == []
    with torch.no_grad():
        predictions = model.eval().test_step(batch(64, 97))
    assert [p.pred_sem_seg.data.shape for p in predictions] == [(1, 64, 97)] * 2


def test_mmsegs_own_ways_in_build_from_the_file(tmp_path):
    import numpy as np
    from mmseg.apis import MMSegInferencer, inference_model, init_model
    path = str(small(tmp_path, 'mae_b', 'linear'))
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    model = init_model(path, device='cpu')
    assert inference_model(model, image).pred_sem_seg.data.shape[1:] == (40, 60)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=tuple('abcdefghi'), palette=[
        [i, i, i] for i in range(9)]))), tmp_path / 'model.pth')
    found = MMSegInferencer(path, str(tmp_path / 'model.pth'), device='cpu')(image)
    assert found['predictions'].shape == (40, 60)


# --- the linear head ---


class Reference(nn.Module):
    """Batch norm, a 1x1 convolution and bilinear upsampling, as plainly as torch has them."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.bn, self.conv_seg = nn.BatchNorm2d(channels), nn.Conv2d(channels, classes, 1)

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(self.conv_seg(self.bn(x)), size, mode='bilinear', align_corners=False)


@pytest.mark.parametrize('size', [(48, 80), (45, 77)])
def test_the_linear_head_is_batch_norm_and_a_convolution(size):
    from mmseg.structures import SegDataSample
    torch.manual_seed(0)
    head = MODELS.build(dict(type='mmseg.LinearHead', in_channels=24, channels=24, num_classes=9, dropout_ratio=0,
                             norm_cfg=dict(type='BN'))).double()
    reference = Reference(24, 9).double()
    for parameter in reference.parameters():
        nn.init.normal_(parameter)
    head.load_state_dict(reference.state_dict())
    x, labels = torch.randn(2, 24, 3, 5).double(), torch.randint(0, 9, (2, *size))
    labels[:, :, -7:] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    inputs = [x.clone().requires_grad_() for _ in range(2)]

    found = head.loss((inputs[0], ), samples, {})
    logits = reference(inputs[1], size)
    wanted = F.cross_entropy(logits, labels, ignore_index=255, reduction='sum') / labels.numel()
    torch.testing.assert_close(found['loss_ce'], wanted, rtol=1e-8, atol=0)  # mmsegmentation adds 1e-7 to the pixels
    valid = labels != 255
    assert found['acc_seg'].item() == pytest.approx(100 * (logits.argmax(1) == labels)[valid].double().mean().item())
    for loss in (found['loss_ce'], wanted):
        loss.backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-8, atol=1e-14)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(head.get_parameter(name).grad, parameter.grad, rtol=1e-8, atol=1e-13)
    meta = [dict(img_shape=torch.Size(size))] * 2
    torch.testing.assert_close(head.eval().predict((x, ), meta, {}), reference.eval()(x, size), rtol=1e-12, atol=1e-12)


def test_the_linear_head_refuses_to_change_the_width():
    with pytest.raises(ValueError, match='24 channels to channels=8'):
        MODELS.build(dict(type='mmseg.LinearHead', in_channels=24, channels=8, num_classes=9))


def test_normed_features_are_the_features_after_the_vits_own_norm(tiny_vit):
    torch.manual_seed(0)
    normed = tiny_vit(out_type='normed_featmap', out_indices=(1, 3)).double()
    nn.init.normal_(normed.norm.weight)
    plain = tiny_vit(out_type='featmap', out_indices=(1, 3)).double()
    plain.load_state_dict({k: v for k, v in normed.state_dict().items() if not k.startswith('norm.')})
    assert not normed.norm.weight.requires_grad and not normed.train().norm.training
    images = torch.randn(2, 3, 32, 48).double()
    for found, before in zip(normed(images), plain(images)):
        wanted = normed.norm(before.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)

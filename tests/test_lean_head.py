"""UPerNet, FCN and Segmenter against mmsegmentation's, and the linear heads against DINOv2's protocol in float64."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, randomise
from mmengine.registry import MODELS
from test_heads import Reference, settings
from test_setr_head import Made, assert_equal, samples
from torch import Tensor, nn

from mmseg_gpt.models.complete import complete
from mmseg_gpt.segmentation import cross_entropy
from mmseg_gpt.segmentation.cross_entropy import upsampled_cross_entropy

COMMON = dict(num_classes=9, dropout_ratio=0, align_corners=False)
HEADS = {
    'UPerHead': dict(in_channels=[8, 8, 8], channels=8, in_index=[0, 1, 2], norm_cfg=dict(type='BN')),
    'FCNHead': dict(in_channels=8, channels=6, in_index=1, num_convs=1, concat_input=False, norm_cfg=dict(type='BN'),
                    loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4, avg_non_ignore=True)),
    'SegmenterMaskTransformerHead': dict(in_channels=8, channels=8, in_index=1, num_layers=2, num_heads=2,
                                         embed_dims=8),
}
GRIDS = [(8, 12), (4, 6), (2, 3)]  # of the features


@pytest.fixture(params=HEADS)
def pair(request) -> Callable[..., list[nn.Module]]:
    """A factory of a stock head and a lean one with the same random weights, in float64."""

    def make(**options) -> list[nn.Module]:
        heads = [MODELS.build({**COMMON, **HEADS[request.param], **options, 'type': f'mmseg.{prefix}{request.param}'})
                 for prefix in ('', 'Lean')]
        for head in heads:
            head.double()
        randomise(heads[0])
        heads[1].load_state_dict(heads[0].state_dict())
        return heads

    return make


def batch(size: tuple[int, int]) -> tuple[tuple[Tensor, ...], list]:
    """Features of two images on three grids, and labels of ``size``, some of which are ignored."""
    labels = torch.randint(0, 9, (2, 1, *size), generator=torch.Generator().manual_seed(1))
    labels[..., -3:] = 255
    return tuple(torch.randn(2, 8, *grid, dtype=torch.float64) for grid in GRIDS), samples(labels)


def train(head: nn.Module, inputs: tuple[Tensor, ...], labels: list) -> tuple[dict, dict, dict]:
    """Losses, all gradients and all buffers after one training step."""
    torch.manual_seed(2)  # of dropped paths
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    found = head.loss(inputs, labels, None)
    sum(value for name, value in found.items() if 'loss' in name).backward()
    gradients = dict(enumerate(x.grad for x in inputs if x.grad is not None))
    return found, gradients | {n: p.grad for n, p in head.named_parameters()}, dict(head.named_buffers())


# Whole, fractional and uneven upsampling of 8x12 and 4x6; the last two are met in the plain way.
@pytest.mark.parametrize('size', [(32, 48), (28, 42), (20, 30), (12, 18), (33, 47), (32, 50)])
def test_it_trains_and_predicts_as_mmsegmentations(pair, size, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', 4000)
    stock, lean = pair()
    data = batch(size)
    for ours, theirs in zip(train(lean, *data), train(stock, *data)):
        assert_equal({str(k): v for k, v in ours.items()}, {str(k): v for k, v in theirs.items()})
    for meta in (dict(img_shape=torch.Size(size)), dict(img_shape=(1, 1), pad_shape=(*size, 3))):
        found, wanted = (head.eval().predict(data[0], [meta] * 2, {}) for head in (lean, stock))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        assert found.is_contiguous(memory_format=torch.channels_last)
    stock.load_state_dict(lean.state_dict())


@pytest.mark.parametrize('options', [
    dict(align_corners=True), dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100)),
    dict(loss_decode=[dict(type='CrossEntropyLoss'), dict(type='DiceLoss', loss_name='loss_dice')])])
def test_other_losses_are_mmsegmentations(pair, options):
    stock, lean = pair(**options)
    data = batch((32, 48))
    for ours, theirs in zip(train(lean, *data)[:2], train(stock, *data)[:2]):
        assert_equal({str(k): v for k, v in ours.items()}, {str(k): v for k, v in theirs.items()})


@pytest.mark.parametrize('size', [(32, 48), (28, 42)])
def test_logits_of_full_size_are_never_made_in_training(pair, size, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', 4000)
    for head, expected in zip(pair(), (True, False)):
        with Made() as made:
            train(head, *batch(size))
        assert any((images, 9, *size) in made.by_shape for images in (1, 2)) is expected


def test_segmenter_keeps_no_attention_weights():
    found = []
    for prefix in ('', 'Lean'):
        head = MODELS.build({**COMMON, **HEADS['SegmenterMaskTransformerHead'],
                             'type': f'mmseg.{prefix}SegmenterMaskTransformerHead'}).double()
        with Made() as made:
            train(head, *batch((32, 48)))
        tokens = 4 * 6 + 9
        found.append(any(shape[-2:] == (tokens, tokens) for shape in made.by_shape))
    assert found == [True, False]


def test_segmenter_has_a_mask_for_each_class():
    with pytest.raises(ValueError, match='each of the 2 classes: leave out_channels=1 out'):
        MODELS.build({**COMMON, **HEADS['SegmenterMaskTransformerHead'], 'num_classes': 2, 'out_channels': 1,
                      'type': 'mmseg.LeanSegmenterMaskTransformerHead'})


@pytest.mark.parametrize('scale', [Fraction(7, 2), Fraction(5, 2), Fraction(4, 3), Fraction(1, 2), Fraction(2, 3)])
@pytest.mark.parametrize('band', [1, 900, 10**9])
def test_upsampling_by_a_fraction(scale, band, monkeypatch):
    monkeypatch.setitem(cross_entropy.BAND, 'cpu', band)
    logits = torch.randn(2, 5, 12, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5, (2, int(12 * scale), int(6 * scale)))
    full = F.interpolate(logits, labels.shape[1:], mode='bilinear', align_corners=False)
    wanted = F.cross_entropy(full, labels, reduction='sum')
    loss, correct = upsampled_cross_entropy(logits, labels, scale, 255)
    torch.testing.assert_close(loss, wanted, rtol=1e-13, atol=0)
    assert correct == (full.argmax(1) == labels).sum()
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (loss, wanted)), rtol=0, atol=1e-13)


def test_the_linear_head_on_four_blocks_is_dinov2s_protocol():
    timm = pytest.importorskip('timm')
    model = MODELS.build(complete(settings(
        type='mmseg.LeanEncoderDecoder', test_cfg=dict(mode='whole'), num_classes=9,
        backbone=dict(type='GatedPromptViT', arch=TINY | dict(num_layers=6), img_size=32, patch_size=8,
                      layer_scale=True, out_type='normed_featmap', out_indices=(-4, -3, -2, -1)),
        decode_head=dict(type='LinearHead', in_index=(0, 1, 2, 3), input_transform='resize_concat', dropout_ratio=0,
                         norm_cfg=dict(type='BN'))))).double().eval()
    randomise(model)
    vit = timm.models.VisionTransformer(32, 8, num_classes=0, embed_dim=32, depth=6, num_heads=4, init_values=1e-5,
                                        norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6)).double().eval()
    vit.load_state_dict(model.backbone.state_dict())
    head = Reference(4 * 32, 9).double().eval()
    head.load_state_dict(model.decode_head.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features = torch.cat(vit.get_intermediate_layers(images, n=4, reshape=True, norm=True), dim=1)
    found = model.encode_decode(images, [dict(img_shape=torch.Size((32, 32)))] * 2)
    torch.testing.assert_close(found, head(features, (32, 32)), rtol=0, atol=1e-12)

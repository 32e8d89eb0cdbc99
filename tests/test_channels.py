"""Images of other numbers of channels than 3: the patch embedding is adapted by timm's rule, and nothing is guessed."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import TINY
from mmengine.config import Config, ConfigDict

from mmseg_gpt.adapters import frozen_source, load_model_state, with_frozen_state
from mmseg_gpt.apis.task import ServedTask
from mmseg_gpt.checkpoints import CheckpointError
from mmseg_gpt.checkpoints.load import adapt_channels, load_vit
from mmseg_gpt.checks.checkpoint import check_backbone, check_pixels
from mmseg_gpt.convert import convert, describe, read_vit
from mmseg_gpt.models import GatedPromptViT
from mmseg_gpt.models.complete import check_channels, complete, explicit

SIZE = dict(arch=TINY, img_size=32, patch_size=8)
PROMPT = dict(type='GatedPrompt', num_tokens=2)


@pytest.fixture
def file(tmp_path):
    """A pretrained ViT for images of 3 channels."""
    torch.save(dict(model=GatedPromptViT(**SIZE).state_dict()), tmp_path / 'vit.pth')
    return tmp_path / 'vit.pth'


def build(file, channels: int, **options) -> GatedPromptViT:
    vit = GatedPromptViT(**SIZE, in_channels=channels, prompt=PROMPT,
                         init_cfg=dict(type='PretrainedViT', checkpoint=str(file)), **options)
    vit.init_weights()
    return vit


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 6, 7, 12])
def test_pretrained_weights_are_adapted_as_timm_does(channels, file, log):
    timm = pytest.importorskip('timm.models')
    vit = build(file, channels)
    pretrained = torch.load(file)['model']['patch_embed.proj.weight']
    assert torch.equal(vit.patch_embed.proj.weight, timm.adapt_input_conv(channels, pretrained.clone()))
    assert not vit.patch_embed.proj.weight.requires_grad
    said = [r.getMessage() for r in log if 'patch embedding' in r.getMessage()]
    assert len(said) == (channels != 3) and all(f'of 3 channels turned into one of {channels}' in line for line in said)


def test_a_grey_image_gives_what_it_gives_as_three_channels(file):
    grey = torch.randn(2, 1, 32, 32)
    assert build(file, 1).eval()(grey)[0].shape == (2, 32, 4, 4)
    torch.testing.assert_close(build(file, 1).embed(grey)[0], build(file, 3).embed(grey.expand(-1, 3, -1, -1))[0])


def test_the_rule_keeps_the_size_of_what_comes_out():
    weight = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    for channels in (1, 6, 9):
        torch.testing.assert_close(adapt_channels(weight, channels).sum(1), weight.sum(1))
    assert adapt_channels(weight.half(), 5).dtype == torch.float32


def test_a_file_of_as_many_channels_is_loaded_as_it_is_and_others_are_refused(tmp_path):
    own = GatedPromptViT(**SIZE, in_channels=5)
    torch.save(dict(model=own.state_dict()), tmp_path / 'five.pth')
    vit = GatedPromptViT(**SIZE, in_channels=5)
    load_vit(vit, tmp_path / 'five.pth')
    assert torch.equal(vit.patch_embed.proj.weight, own.patch_embed.proj.weight)
    for channels in (3, 4):
        with pytest.raises(CheckpointError, match=r'5 channels.*in_channels=5'):
            load_vit(GatedPromptViT(**SIZE, in_channels=channels), tmp_path / 'five.pth')


def test_a_file_of_another_vit_is_refused_without_advice_on_channels(tmp_path):
    torch.save(dict(model=GatedPromptViT(**SIZE | dict(patch_size=4)).state_dict()), tmp_path / 'vit.pth')
    with pytest.raises(CheckpointError, match='patch_size=4') as raised:
        load_vit(GatedPromptViT(**SIZE, in_channels=5), tmp_path / 'vit.pth')
    assert 'in_channels' not in str(raised.value)


@pytest.mark.parametrize('layout', ['timm', 'mmpretrain', 'mmsegmentation', 'mmseg_gpt'])
def test_a_vit_of_five_channels_is_described_and_converted(layout, tmp_path):
    vit = GatedPromptViT(**SIZE, in_channels=5, out_type='cls_token')
    torch.save(dict(model=vit.state_dict()), tmp_path / 'five.pth')
    assert read_vit(tmp_path / 'five.pth').shape.channels == 5
    assert 'in_channels=5' in describe(tmp_path / 'five.pth')
    convert(tmp_path / 'five.pth', tmp_path / 'other.pth', layout)
    other = GatedPromptViT(**SIZE, in_channels=5, out_type='cls_token')
    load_vit(other, tmp_path / 'other.pth')
    assert all(torch.equal(weight, other.vit_state()[name]) for name, weight in vit.vit_state().items())


class Segmentor(torch.nn.Module):

    def __init__(self, backbone: GatedPromptViT) -> None:
        super().__init__()
        self.backbone = backbone


def adapters_of(model: Segmentor, channels: int) -> dict:
    """An adapter-only checkpoint, as a run writes it."""
    frozen = {f'backbone.{name}' for name in model.backbone.vit_state()}
    backbone = dict(SIZE, type='GatedPromptViT', in_channels=channels, prompt=PROMPT)
    return dict(state_dict={k: v for k, v in copy.deepcopy(model.state_dict()).items() if k not in frozen},
                meta=dict(frozen=frozen_source(model), settings=json.dumps(dict(model=dict(backbone=backbone)))))


def test_adapters_find_the_adapted_vit_again(file, tmp_path):
    model = Segmentor(build(file, 5))
    torch.nn.init.normal_(model.backbone.prompt.tokens)
    checkpoint = adapters_of(model, 5)
    other = Segmentor(GatedPromptViT(**SIZE, in_channels=5, prompt=PROMPT, init_cfg=model.backbone.init_cfg))
    load_model_state(other, checkpoint, 'adapters.pth')
    check_backbone(other, checkpoint, 'adapters.pth')
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    whole = with_frozen_state(checkpoint, str(file), 'adapters.pth')
    assert whole.keys() == model.state_dict().keys()
    assert all(torch.equal(v, whole[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('channels', [1, 3, 6])
def test_adapters_of_another_number_of_channels_are_refused(channels, file):
    checkpoint = adapters_of(Segmentor(build(file, 5)), 5)
    other = Segmentor(build(file, channels))
    load_model_state(other, checkpoint, 'adapters.pth')  # by names and shapes they fit
    with pytest.raises(CheckpointError, match=f'in_channels was 5 and is {channels}'):
        check_backbone(other, checkpoint, 'adapters.pth')


NORMAL = dict(mean=[0.] * 4, std=[1.] * 4)


@pytest.mark.parametrize('outside', [False, True], ids=['mmseg', 'mmpretrain'])
@pytest.mark.parametrize('changes, is_warned', [
    ({}, False), (dict(mean=(0., ) * 4), False), (dict(std=[2.] * 4), True), (dict(bgr_to_rgb=True), True)])
def test_other_pixels_than_in_training_are_warned_of(changes, is_warned, outside, log):
    old, new = (dict(model={}, data_preprocessor=each) if outside else dict(model=dict(data_preprocessor=each))
                for each in (NORMAL, NORMAL | changes))
    check_pixels(Config(new), dict(meta=dict(settings=json.dumps(old))), 'x.pth')
    assert ['x.pth was trained with data_preprocessor' in record.getMessage() for record in log] == [True] * is_warned


@pytest.mark.parametrize('preprocessor, message', [
    (dict(NORMAL, mean=[0.] * 3), 'mean has 3 entries, but images have 4 channels'),
    (dict(NORMAL, std=[1.] * 5), 'std has 5 entries, but images have 4 channels'),
    (dict(NORMAL, bgr_to_rgb=True), 'bgr_to_rgb is for images of 3 channels, and these have 4'),
    (dict(NORMAL, to_rgb=True), 'to_rgb is for images of 3 channels, and these have 4'),
])
def test_a_preprocessor_for_other_images_is_refused(preprocessor, message):
    backbone = dict(type='GatedPromptViT', in_channels=4)
    head = dict(type='mmpretrain.LinearClsHead')
    with pytest.raises(ValueError, match=message):
        complete(ConfigDict(type='LeanEncoderDecoder', backbone=backbone, data_preprocessor=preprocessor,
                            decode_head=dict(type='LinearHead'), num_classes=5))
    for cfg in (dict(model=dict(backbone=backbone, head=head), data_preprocessor=preprocessor),
                dict(model=dict(backbone=backbone, head=head, data_preprocessor=preprocessor))):
        with pytest.raises(ValueError, match=message):
            explicit(Config(cfg))


def test_a_preprocessor_that_fits_is_taken():
    for preprocessor in (NORMAL, dict(NORMAL, bgr_to_rgb=False), dict(mean=[0.], std=[1.]), {}):
        check_channels(dict(type='GatedPromptViT', in_channels=4), preprocessor)
    check_channels(dict(type='GatedPromptViT'), dict(mean=[0.] * 3, std=[1.] * 3, bgr_to_rgb=True))
    check_channels(dict(type='mmpretrain.ResNet'), dict(mean=[0.] * 4))
    with pytest.raises(ValueError, match='mean has 4 entries, but images have 3'):
        check_channels(dict(type='GatedPromptViT'), NORMAL)


def test_a_segmentor_trains_and_predicts_on_five_channels(tmp_path):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    from test_configs import build as build_model
    from test_heads import small
    cfg = Config.fromfile(small(tmp_path, 'mae_b', 'linear'))
    cfg.model.backbone.in_channels = 5
    cfg.model.data_preprocessor.update(mean=[100.] * 5, std=[50.] * 5, bgr_to_rgb=False)
    model = build_model(cfg)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 9, (1, 64, 64)))) for _ in range(2)]
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(64, 64), ori_shape=(64, 64)))
    batch = dict(inputs=list(torch.randint(0, 256, (2, 5, 64, 64), dtype=torch.uint8)), data_samples=samples)
    losses = model.train().forward(**model.data_preprocessor(copy.deepcopy(batch), training=True), mode='loss')
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.backbone.prompt.tokens.grad.any()
    assert model.eval().test_step(batch)[0].pred_sem_seg.data.shape == (1, 64, 64)


@pytest.mark.parametrize('channels, array, known', [
    (3, np.zeros((4, 5, 3), np.uint8), True), (3, np.zeros((4, 5, 3), np.float32), False),
    (3, np.zeros((4, 5, 4), np.uint8), False), (4, np.zeros((4, 5, 4), np.uint8), True),
    (4, np.zeros((4, 5, 4), np.uint16), True), (4, np.zeros((4, 5, 3), np.uint8), False),
    (4, np.zeros((4, 5, 4), np.int64), False),
])
def test_a_served_task_takes_images_of_its_channels(channels, array, known):
    class Reader:
        to_float32 = False

    vit = GatedPromptViT(**SIZE, in_channels=channels)
    task = ServedTask(None, vit, '', Reader(), None)
    if known:
        assert task.read(array)['img'] is array
    else:
        with pytest.raises(ValueError, match=rf'\(height, width, {channels}\)'):
            task.read(array)


def test_no_channel_at_all_is_refused():
    with pytest.raises(ValueError, match='in_channels must be at least 1, got 0'):
        GatedPromptViT(**SIZE, in_channels=0)


def test_a_batch_of_other_channels_is_refused(file):
    with pytest.raises(RuntimeError, match='5 channels'):
        build(file, 4)(torch.zeros(1, 5, 32, 32))

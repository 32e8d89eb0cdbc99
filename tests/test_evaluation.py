"""Evaluation as a stream gives the results of mmsegmentation, in bounded memory."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.apis import inference_model
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny_run import next_name, tiny_config
from torch import nn
from torch.nn import functional as F

from mmseg_gpt.engine import Runner, set_test_precision
from mmseg_gpt.lab.benchmark.memory import LiveBytes
from mmseg_gpt.segmentation import segmentor
from mmseg_gpt.segmentation.bands import Windows

KINDS = ('LeanEncoderDecoder', 'EncoderDecoder')
CLASSES, CROP = 5, 16
SIZES = [(9, 13), (16, 16), (16, 30), (12, 40), (37, 45), (50, 16), (64, 33)]  # of images, against the crop of 16


@MODELS.register_module(force=True)
class Strided(nn.Module):
    """A backbone that any image fits: features at a quarter of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=4, padding=2)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.conv(images).tanh(), )


def model(kind: str, align_corners: bool = False, channels: int = CLASSES, **test_cfg) -> nn.Module:
    """A segmentor whose weights are the same for both kinds."""
    torch.manual_seed(0)
    head = dict(type='FCNHead', in_channels=6, channels=4, num_convs=1, concat_input=False, norm_cfg=None,
                num_classes=max(channels, 2), out_channels=channels, align_corners=align_corners)
    if channels == 1:
        head['threshold'] = 0.5
    test_cfg = {**dict(mode='slide', crop_size=(CROP, CROP), stride=(11, 11)), **test_cfg}
    preprocessor = dict(type='mmseg.SegDataPreProcessor', mean=[127.] * 3, std=[50.] * 3)
    built = MODELS.build(ConfigDict(type=kind, backbone=dict(type='Strided'), decode_head=head, test_cfg=test_cfg,
                                    data_preprocessor=preprocessor))
    for parameter in built.parameters():
        nn.init.normal_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return built.double().eval()


def sample(size: tuple[int, int], original: tuple[int, int] | None = None, **meta) -> SegDataSample:
    return SegDataSample(metainfo=dict(img_shape=size, ori_shape=original or size, img_path='a.jpg', **meta))


@torch.no_grad()
def compare(size: tuple[int, int], original: tuple[int, int] | None = None, batch: int = 1, meta: dict | None = None,
            **options) -> None:
    """Asserts that both give the same labels for a batch, and the same logits for its first image."""
    meta = meta or {}
    window_batch = options.pop('window_batch', 1)
    images = torch.randn(batch, 3, *size, dtype=torch.float64)
    expected = model('EncoderDecoder', **options).predict(images, [sample(size, original, **meta) for _ in images])
    lean = model('LeanEncoderDecoder', window_batch=window_batch, **options)
    found = lean.predict(images, [sample(size, original, **meta) for _ in images])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data.long())
        assert ours.pred_sem_seg.data.dtype == torch.long and 'seg_logits' not in ours
    assert found[0].pred_sem_seg.data.unique().numel() > 1
    rows = torch.cat([band.clone() for band in lean.original_rows(images[0], sample(size, original, **meta).metainfo)])
    logits = rows.permute(2, 0, 1).sigmoid() if rows.shape[2] == 1 else rows.permute(2, 0, 1)
    torch.testing.assert_close(logits, expected[0].seg_logits.data, rtol=1e-12, atol=1e-12)


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    """Bands of a few rows, so that small images have several."""
    monkeypatch.setattr(segmentor, 'CPU_BAND', 8 * 3 * 50 * CLASSES)


# --- one scale -------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('stride', [(11, 11), (16, 16), (5, 7), (3, 16)])
def test_sliding_windows_are_averaged_as_in_mmsegmentation(size, stride):
    for window_batch in (1, 2, 3, 4):
        compare(size, stride=stride, window_batch=window_batch)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('channels', [CLASSES, 1])
@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_resizing_is_that_of_mmsegmentation(align_corners, channels, mode):
    for size, original in itertools.product([(9, 13), (37, 45)], [(37, 45), (61, 99), (37, 20), (8, 45), (5, 4)]):
        compare(size, original, align_corners=align_corners, channels=channels, mode=mode)


@pytest.mark.parametrize('name', ['padding_size', 'img_padding_size'])
@pytest.mark.parametrize('flip', [None, 'horizontal', 'vertical'])
@pytest.mark.parametrize('original', [None, (50, 70)])
def test_padding_and_flips_are_undone(name, flip, original):
    for padding in ((0, 0, 0, 0), (0, 3, 0, 6), (2, 3, 5, 1), (0, 0, 12, 12)):
        meta = dict(flip=bool(flip), flip_direction=flip, **{name: padding})
        size = (37, 45)
        original = original or (size[0] - sum(padding[2:]), size[1] - sum(padding[:2]))
        compare(size, original, meta=meta)


def test_a_flip_that_cannot_be_undone_is_refused():
    with pytest.raises(ValueError, match='diagonal'):
        model('LeanEncoderDecoder').predict(torch.zeros(1, 3, 9, 9).double(),
                                            [sample((9, 9), flip=True, flip_direction='diagonal')])


def test_a_batch_may_have_images_of_several_original_sizes():
    compare((37, 45), (40, 60), batch=3)
    samples = [sample((20, 20), (20 + i, 30 - i)) for i in range(3)]
    found = model('LeanEncoderDecoder').predict(torch.randn(3, 3, 20, 20).double(), samples)
    assert found is samples
    assert [s.pred_sem_seg.shape for s in found] == [(20 + i, 30 - i) for i in range(3)]


def test_without_samples_labels_have_the_size_of_the_images():
    images = torch.randn(2, 3, 20, 31).double()
    for mode in ('slide', 'whole'):
        ours, theirs = (model(kind, mode=mode)(images, mode='predict') for kind in KINDS)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def test_other_modes_are_those_of_mmsegmentation():
    images, label = torch.randn(2, 3, 20, 31).double(), PixelData(data=torch.randint(0, CLASSES, (1, 20, 31)))
    samples = [SegDataSample(metainfo=dict(img_shape=(20, 31)), gt_sem_seg=label) for _ in images]
    ours, theirs = model('LeanEncoderDecoder'), model('EncoderDecoder')
    assert torch.equal(ours(images), theirs(images))
    assert ours(images, samples, mode='loss') == theirs(images, samples, mode='loss')


def test_kept_logits_are_those_of_mmsegmentation():
    images = torch.randn(2, 3, 20, 31).double()
    ours, theirs = (model(kind, keep_logits=True).predict(images, [sample((20, 31), (25, 35)) for _ in images])
                    for kind in KINDS)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def test_windows_go_through_the_model_together(monkeypatch):
    lean = model('LeanEncoderDecoder', window_batch=4)
    encode_decode, batches = lean.encode_decode, []

    def counted(crops, metas):
        batches.append(len(crops))
        assert len(metas) == len(crops) and metas[0]['img_shape'] == crops.shape[2:]
        return encode_decode(crops, metas)

    monkeypatch.setattr(lean, 'encode_decode', counted)
    lean.predict(torch.randn(1, 3, 37, 45).double(), [sample((37, 45))])
    assert batches == [4, 4, 4]  # 3 rows of 4 windows


def test_gaps_between_windows_and_unknown_modes_are_refused():
    with pytest.raises(ValueError, match=r'stride.*crop_size'):
        Windows.sliding((40, 40), (16, 16), (16, 17))
    assert Windows.sliding((16, 9), (16, 16), (20, 20)).places == [(0, 0)]
    with pytest.raises(ValueError, match=r'test_cfg\.mode.*silde'):
        model('LeanEncoderDecoder', mode='silde').predict(torch.zeros(1, 3, 9, 9).double())


def test_logits_of_half_precision_are_added_in_that_of_the_image(monkeypatch):
    images = torch.randn(1, 3, 37, 45).double()
    lean = model('LeanEncoderDecoder')
    encode_decode = lean.encode_decode
    monkeypatch.setattr(lean, 'encode_decode', lambda *args: encode_decode(*args).bfloat16())
    for mode in ('slide', 'whole'):
        lean.test_cfg.mode = mode
        for original in ((37, 45), (50, 60)):
            bands = lean.original_rows(images[0], sample((37, 45), original).metainfo)
            assert {band.dtype for band in bands} == {torch.float64}


# --- several views ---------------------------------------------------------------------------------


def augmented(originals: list[tuple[int, int]]) -> dict:
    """A batch as TestTimeAug and the collation make it: three scales, each with and without a flip."""
    images = 255 * torch.rand(len(originals), 3, 7, 7)
    data = dict(inputs=[], data_samples=[])
    for size, flip in itertools.product([(14, 18), (20, 30), (33, 41)], ['', 'horizontal', 'vertical']):
        flipped = images.flip([dict(horizontal=3, vertical=2)[flip]] if flip else [])
        data['inputs'].append(list(F.interpolate(flipped, size, mode='bilinear').byte()))
        data['data_samples'].append([
            SegDataSample(metainfo=dict(img_shape=size, ori_shape=original, img_path=f'{i}.jpg', flip=bool(flip),
                                        flip_direction=flip or None, reduce_zero_label=True),
                          gt_sem_seg=PixelData(data=torch.full((1, *original), i)))
            for i, original in enumerate(originals)])
    return data


def with_views(kind: str, module: nn.Module) -> nn.Module:
    return MODELS.build(dict(type=kind, module=module))


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('originals', [[(29, 37)], [(20, 30), (29, 37), (10, 60)]])
@torch.no_grad()
def test_views_are_merged_as_in_mmsegmentation(mode, originals):
    torch.manual_seed(1)
    data = augmented(originals)
    copy = dict(inputs=data['inputs'], data_samples=[[s.clone() for s in view] for view in data['data_samples']])
    expected = with_views('SegTTAModel', model('EncoderDecoder', mode=mode)).test_step(data)
    found = with_views('LeanSegTTAModel', model('LeanEncoderDecoder', mode=mode)).test_step(copy)
    assert any(one.pred_sem_seg.data.unique().numel() > 1 for one in found)
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
        assert torch.equal(ours.gt_sem_seg.data, theirs.gt_sem_seg.data)
        assert ours.img_path == theirs.img_path == f'{i}.jpg' and ours.reduce_zero_label
        assert 'seg_logits' not in ours and not ours.flip


@torch.no_grad()
def test_views_of_a_single_channel_are_the_mean_of_sigmoids():
    data = augmented([(29, 37)])
    stock = model('EncoderDecoder', channels=1)
    # mmsegmentation's "logits" of a single channel are probabilities already.
    views = [stock.test_step(dict(inputs=i, data_samples=[s[0].clone()]))[0].seg_logits.data
             for i, s in zip(data['inputs'], data['data_samples'])]
    found = with_views('LeanSegTTAModel', model('LeanEncoderDecoder', channels=1)).test_step(data)[0]
    assert torch.equal(found.pred_sem_seg.data, (sum(views) / len(views) > 0.5).long())
    assert found.pred_sem_seg.data.unique().numel() == 2


@torch.no_grad()
def test_confidence_of_a_single_channel_is_that_of_the_label_whatever_the_threshold():
    built = model('LeanEncoderDecoder', channels=1)
    built.decode_head.threshold = 0.3
    wanted = sample((24, 32), probabilities=True, confidence=True)
    found = built.predict(torch.randn(1, 3, 24, 32, dtype=next(built.parameters()).dtype), [wanted])[0]
    foreground, labels = found.seg_probabilities.data.float(), found.pred_sem_seg.data
    between = (foreground > 0.3) & (foreground < 0.5)
    assert between.any() and labels[between].all()
    expected = 255 * torch.where(labels > 0, foreground, 1 - foreground)
    assert (found.seg_confidence.data - expected).abs().max() <= 1


def test_views_need_the_segmentor_that_streams():
    with pytest.raises(TypeError, match='type="SegTTAModel"'):
        with_views('LeanSegTTAModel', model('EncoderDecoder'))


# --- memory ----------------------------------------------------------------------------------------


def peak(kind: str, size: tuple[int, int], original: tuple[int, int], **options) -> int:
    """The most bytes that are alive while one image is predicted in float32, the result among them."""
    built, image = model(kind, **options).float(), torch.randn(1, 3, *size)
    with torch.no_grad(), LiveBytes() as memory:
        built.predict(image, [sample(size, original)])
    return memory.peak


def test_the_count_of_memory_sees_what_mmsegmentation_makes():
    logits = 4 * CLASSES * 300 * 400
    assert 1.5 * logits < peak('EncoderDecoder', (300, 400), (300, 400)) < 5 * logits
    assert logits < peak('EncoderDecoder', (30, 40), (300, 400))


@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_logits_are_never_made_at_the_original_size(mode):
    assert peak('LeanEncoderDecoder', (48, 64), (3000, 4000), mode=mode) < 3000 * 4000 * 8 + 2**20  # labels are int64


def test_memory_grows_with_the_height_only_by_image_and_labels(monkeypatch):
    monkeypatch.setattr(segmentor, 'CPU_BAND', 2**15)
    low, high = (peak('LeanEncoderDecoder', (height, 64), (height, 64), crop_size=(64, 64), stride=(43, 43))
                 for height in (1000, 3000))
    assert high - low <= 2000 * 64 * (3 * 4 + 8)


def test_nothing_of_a_view_is_kept_for_the_next(monkeypatch):
    original = (120, 160)
    data = augmented([original])
    merged = with_views('LeanSegTTAModel', model('LeanEncoderDecoder')).float()
    add_view, live = merged.add_view, []

    def observed(*args):
        live.append(memory.live)
        return add_view(*args)

    monkeypatch.setattr(merged, 'add_view', observed)
    with torch.no_grad(), LiveBytes() as memory:
        merged.test_step(data)
    total, image = 4 * CLASSES * 120 * 160, 4 * 3 * 33 * 41
    assert len(live) == 9 and max(live) <= total + 2 * image
    assert memory.peak < 2 * total


# --- as it is used ---------------------------------------------------------------------------------


@pytest.mark.parametrize('tta', [False, True])
def test_a_run_measures_what_it_measures_with_mmsegmentation(tta, tmp_path):
    cfg = tiny_config(tmp_path, model__decode_head__num_classes=9)  # as many as are drawn
    found = []
    for kind, tta_kind in zip(KINDS, ('LeanSegTTAModel', 'SegTTAModel')):
        run = cfg.copy()
        run.experiment_name = next_name()
        run.model.type = kind
        if tta:
            run.model = dict(type=tta_kind, module=run.model)
            run.test_dataloader.dataset.pipeline = run.tta_pipeline
        runner = Runner.from_cfg(run)
        metrics = runner.test()
        found.append(([metrics[name] for name in ('aAcc', 'mIoU', 'mAcc')],
                      runner.test_loop.evaluator.metrics[0].per_class))
    assert found[0] == found[1] and found[0][0][0] > 1


def test_a_test_runs_in_the_precision_that_is_asked_for(tmp_path, monkeypatch):
    cfg, seen = tiny_config(tmp_path), set()
    cfg.experiment_name = next_name()
    set_test_precision(cfg, None)
    assert 'fp16' not in cfg.test_cfg
    monkeypatch.setattr('torch.set_autocast_dtype', lambda *args: seen.add(args))
    set_test_precision(cfg, 'bf16')
    assert seen == {('cuda', torch.bfloat16)}  # a CPU has no other
    runner = Runner.from_cfg(cfg)
    runner.model.decode_head.up_convs[0][0].conv.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    runner.test()
    assert torch.bfloat16 in seen and torch.float32 not in seen


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(SystemExit, match='bf16'):
        set_test_precision(Config(dict(test_cfg=dict())), 'fp16')


def test_one_image_is_labelled_by_the_interface_of_mmsegmentation():
    images = [np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)] * 2
    results = []
    for kind in KINDS:
        built = model(kind).float()
        built.cfg = ConfigDict(test_pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(60, 50)),
                                              dict(type='PackSegInputs')])
        with DefaultScope.overwrite_default_scope('mmseg'):
            results.append(inference_model(built, images))
    for ours, theirs in zip(*results, strict=True):
        assert ours.pred_sem_seg.shape == (37, 45)
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_half_precision_is_interpolated_in_single(small_bands):
    image = torch.randn(3, *SIZES[0]).bfloat16()
    lean = model('LeanEncoderDecoder').bfloat16()
    with torch.no_grad():
        bands = list(lean.original_rows(image, sample(SIZES[0], (200, 300)).metainfo))
    assert {band.dtype for band in bands} == {torch.float32} and sum(map(len, bands)) == 200


def test_what_cannot_be_is_refused_in_words():
    images, meta = torch.randn(1, 3, *SIZES[0], dtype=torch.float64), [sample(SIZES[0])]
    with pytest.raises(ValueError, match='window_batch is 0'):
        model('LeanEncoderDecoder', window_batch=0).predict(images, meta)
    lean = model('LeanEncoderDecoder')
    lean.decode_head.predict_by_feat = lambda logits, metas: logits[..., 1:]
    with pytest.raises(ValueError, match='gave logits of'):
        lean.predict(images, meta)


# --- large images ----------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(37, 45), (64, 133), (16, 200), (50, 16)])
@pytest.mark.parametrize('strip', [1, 16 * 60 * CLASSES * 4, 16 * 90 * CLASSES * 4, 2**30])
@torch.no_grad()
def test_a_large_image_gets_the_labels_of_the_plain_sliding_window(size, strip, monkeypatch):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    plain = model('EncoderDecoder').test_step(dict(inputs=[image], data_samples=[sample(size)]))[0]
    monkeypatch.setattr(segmentor, 'LARGE_IMAGE', 0)
    monkeypatch.setattr(segmentor, 'STRIP', strip)
    lean = model('LeanEncoderDecoder')
    shares, covered = [], torch.zeros(size)
    lean.report_share = shares.append
    for rows, columns, logits in lean.patches(image, sample(size).metainfo, raw=True):
        torch.testing.assert_close(logits.permute(2, 0, 1), plain.seg_logits.data[:, rows, columns], rtol=1e-5,
                                   atol=1e-5, check_dtype=False)
        covered[rows, columns] += 1
    assert (covered == 1).all()
    found = lean.test_step(dict(inputs=[image], data_samples=[sample(size, small=True, confidence=True)]))[0]
    assert torch.equal(found.pred_sem_seg.data.long(), plain.pred_sem_seg.data)
    assert found.pred_sem_seg.data.dtype == torch.uint8 and shares == sorted(shares) and shares[-1] == 1
    expected = (255 * plain.seg_logits.data.softmax(0).amax(0)).round()
    assert (found.seg_confidence.data[0] - expected).abs().max() <= 1


def test_panels_of_windows_cover_each_column_once():
    for width, extent, stride in itertools.product((16, 31, 100, 257), (16, ), (1, 7, 11, 16)):
        windows = Windows.sliding((20, width), (16, extent), (5, stride))
        for limit in (1, 16, 40, 90, 1000):
            end = 0
            for columns, offset, part in windows.panels(limit):
                assert columns.start == end and offset <= columns.start < columns.stop <= offset + part.image[1]
                inside = {left for left in windows.lefts if left < columns.stop and left + extent > columns.start}
                assert inside <= {left + offset for left in part.lefts} and part.image[1] <= max(limit, 3 * extent)
                end = columns.stop
            assert end == width


@torch.no_grad()
def test_views_of_a_large_image_are_merged_side_by_side_alike(monkeypatch):
    torch.manual_seed(1)
    data = augmented([(29, 37)])
    keep = [i for i, view in enumerate(data['data_samples']) if view[0].flip_direction != 'vertical']
    data = {name: [values[i] for i in keep] for name, values in data.items()}
    for view in data['data_samples']:
        view[0].set_metainfo(dict(confidence=True))
    merged = with_views('LeanSegTTAModel', model('LeanEncoderDecoder'))
    expected = merged.test_step(dict(data, data_samples=[[v[0].clone()] for v in data['data_samples']]))[0]
    monkeypatch.setattr(segmentor, 'LARGE_IMAGE', 0)
    monkeypatch.setattr(segmentor, 'STRIP', 0)
    monkeypatch.setattr(segmentor, 'CPU_BAND', 7 * 37 * CLASSES * 4)
    found = merged.test_step(dict(data, data_samples=[[v[0].clone()] for v in data['data_samples']]))[0]
    assert torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)
    assert (found.seg_confidence.data.int() - expected.seg_confidence.data.int()).abs().max() <= 1
    assert expected.pred_sem_seg.data.unique().numel() > 1
    data['data_samples'][0][0].set_metainfo(dict(flip=True, flip_direction='vertical'))
    with pytest.raises(ValueError, match='too large for vertical flips'):
        merged.test_step(data)


def test_memory_of_a_large_image_is_bounded(monkeypatch):
    monkeypatch.setattr(segmentor, 'LARGE_IMAGE', 0)
    monkeypatch.setattr(segmentor, 'STRIP', 2**17)
    monkeypatch.setattr(segmentor, 'CPU_BAND', 2**15)
    built, size = model('LeanEncoderDecoder').float(), (200, 500)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad(), LiveBytes() as memory:
        built.test_step(dict(inputs=[image], data_samples=[sample(size, small=True)]))
    assert memory.peak < 4 * 200 * 500 + 4 * 2**17  # image and labels, and a row of windows of a panel


def test_a_missing_label_is_said_in_words_not_as_a_key_error():
    from mmseg_gpt.segmentation.metrics import PerClassIoUMetric
    answer = dict(img_path='a.jpg', pred_sem_seg=dict(data=torch.zeros(1, 4, 4)))
    with pytest.raises(ValueError, match=r'a\.jpg has no label map .*LoadAnnotations.*tta_pipeline.*predict'):
        PerClassIoUMetric().process({}, [answer])

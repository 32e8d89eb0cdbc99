"""How long a step of training and a prediction take on this machine, measured with random images and weights."""

import time
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, PixelData

from .plan import Setup, Times

STEPS = 2  # that are measured, after one that is not


def measure(cfg: Config, plan: Setup, ratio: float, device: str) -> Times:
    """Measures the model of a config.

    Args:
        cfg: The whole config.
        plan: Says the sizes of crops and images, and the batch.
        ratio: Long side of a tested image over the short one.
        device: Where to measure.

    Raises:
        torch.OutOfMemoryError: the batch does not fit the GPU.
    """
    settings, segments = cfg.model.to_dict(), 'decode_head' in cfg.model
    if cfg.get('data_preprocessor'):
        settings['data_preprocessor'] = dict(cfg.data_preprocessor.to_dict(), type='ClsDataPreprocessor')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(settings).to(device)
        channels, classes = model.backbone.in_channels, len(cfg.metainfo.classes)
        batch = sample_batch(plan.batch, channels, (plan.crop, plan.crop), classes, segments)
        step = seconds(lambda: train_step(model, batch), device)
        size = (plan.size, round(plan.size * ratio)) if segments else (plan.crop, plan.crop)
        tested = sample_batch(1, channels, size, classes, segments)
        model.eval()
        with torch.no_grad():
            return Times(step, seconds(lambda: model.test_step(tested), device))


def train_step(model: torch.nn.Module, batch: dict) -> None:
    """Computes the gradients of a batch."""
    model.train()
    prepared = model.data_preprocessor(batch, True)
    loss, _ = model.parse_losses(model(**prepared, mode='loss'))
    if loss.requires_grad:
        loss.backward()
    model.zero_grad()


def sample_batch(number: int, channels: int, size: tuple[int, int], classes: int, segments: bool) -> dict:
    """Returns random images with random labels, as a data loader gives them."""
    images = [torch.randint(0, 256, (channels, *size), dtype=torch.uint8) for _ in range(number)]
    samples = []
    for i in range(number):
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, img_path='')
        if segments:
            from mmseg.structures import SegDataSample
            sample: BaseDataElement = SegDataSample(metainfo=meta)
            sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, *size)))
        else:
            from mmpretrain.structures import DataSample
            sample = DataSample(metainfo=meta).set_gt_label(i % classes)
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def seconds(work: Callable[[], object], device: str) -> float:
    """Returns the seconds that a piece of work takes; the first time does not count."""
    work()
    start = now(device)
    for _ in range(STEPS):
        work()
    return (now(device) - start) / STEPS


def now(device: str) -> float:
    """Returns the time at which all that was asked of the device is done, in seconds."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()



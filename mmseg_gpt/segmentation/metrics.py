"""mmsegmentation's IoU metric, which here says over which classes its mean is, and can keep the IoU of each class."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from ..resources import command_of
from ..wording import listed

COMPUTE = IoUMetric.compute_metrics


def compute_and_say(self: IoUMetric, results: list) -> OrderedDict:
    """Computes the summary as mmsegmentation does, and warns below its table where classes are not in the mean.

    mmsegmentation leaves out a class that is neither in the labels nor in the predictions, without a word; and one that
    no label has, but a prediction, counts 0. ``covered`` says both: how many classes are ``declared`` and how many
    ``in_mIoU``, and those that are ``not_in_mIoU`` and those ``without_label``.

    Args:
        self: The metric.
        results: Its areas of each image.
    """
    summary = COMPUTE(self, results)
    if self.format_only:
        return summary
    _, union, _, labels = (sum(area) for area in zip(*results))
    names = self.dataset_meta['classes']
    absent = [name for name, area in zip(names, union) if not area] if self.nan_to_num is None else []
    unlabelled = [name for name, area in zip(names, labels) if not area and name not in absent]
    self.covered = {'declared': len(names), 'in_mIoU': len(names) - len(absent), 'not_in_mIoU': absent,
                    'without_label': unlabelled}
    if absent:
        print_log(f'The means are over {len(names) - len(absent)} of {len(names)} classes: not over '
                  f'{listed(absent, 8)}, of which there is no pixel in the labels or predictions', 'current',
                  logging.WARNING)
    if unlabelled:
        print_log(f'IoU is 0 for {listed(unlabelled, 8)}, of which no label has a pixel, but predictions have',
                  'current', logging.WARNING)
    return summary


def counted_areas(pred_label: torch.Tensor, label: torch.Tensor, num_classes: int,
                  ignore_index: int) -> tuple[torch.Tensor, ...]:
    """Counts pixels as mmsegmentation does, on the host, where the predictions go once.

    mmsegmentation asks a GPU seven times for how many there are, and by histograms that its deterministic mode refuses.
    Its float32 is rounded where images add up to more than 2**24 pixels, in the order in which they are added.

    Args:
        pred_label: Predicted class numbers (H, W).
        label: True class numbers (H, W).
        num_classes: Number C of classes; other numbers are not counted.
        ignore_index: True number of pixels that are not counted.

    Returns:
        tuple: Four times int64 (C,): the pixels of each class where both agree, of either, predicted, and true.
    """
    predicted, true = (labels.cpu().numpy().ravel().astype(np.int64) for labels in (pred_label, label))
    counted = true != ignore_index
    rest = num_classes  # one more class for what is none
    predicted, true = (np.where((labels < 0) | (labels > rest), rest, labels)[counted] for labels in (predicted, true))
    pairs = np.bincount(true * (rest + 1) + predicted, minlength=(rest + 1)**2).reshape(rest + 1, rest + 1)
    both, of_predicted, of_true = (torch.from_numpy(counts[:rest].astype(np.int64)) for counts in (
        pairs.diagonal(), pairs.sum(0), pairs.sum(1)))
    return both, of_predicted + of_true - both, of_predicted, of_true


IoUMetric.compute_metrics = compute_and_say
IoUMetric.intersect_and_union = staticmethod(counted_areas)


@METRICS.register_module()
class PerClassIoUMetric(IoUMetric):
    """IoUMetric whose ``per_class`` holds the IoU of each class in percent, by its name, after ``evaluate``.

    The IoU is None for a class that occurs neither in the labels nor in the predictions. Everything else is as in
    ``mmseg.evaluation.IoUMetric``, whose ``output_dir`` names label maps by the last part of the image's path, and
    numbers classes as the dataset does; ``tools/test.py --out`` keeps subfolders.

    Args:
        **options: Arguments of ``mmseg.evaluation.IoUMetric``.

    Raises:
        ValueError: from ``process``, if an image has no label map, or two would have one in ``output_dir``; from
            ``evaluate``, if all pixels of all images are ignored: mmsegmentation's mIoU is nan then.
    """

    per_class: dict[str, float | None]

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.written: dict[str, str] = {}  # the images by the names of their label maps

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of a batch as mmsegmentation does, and writes label maps if there is an ``output_dir``."""
        for sample in data_samples:
            if not self.format_only and 'gt_sem_seg' not in sample:
                raise ValueError(f'{sample.get("img_path", "an image")} has no label map to compare with: add '
                                 'LoadAnnotations to the pipeline of test_dataloader (with --tta, to tta_pipeline), or '
                                 f'predict without label maps, by {command_of("predict")}')
        if self.output_dir is not None:
            for sample in data_samples:
                name = Path(sample['img_path']).stem
                if (other := self.written.setdefault(name, sample['img_path'])) != sample['img_path']:
                    raise ValueError(f'{other} and {sample["img_path"]} would both be {name}.png in {self.output_dir}: '
                                     f'leave output_dir out, and use {command_of("test")} --out, which keeps '
                                     'subfolders')
        for sample in data_samples:
            self.fetch(sample)
        super().process(data_batch, data_samples)

    def fetch(self, sample: dict) -> None:
        """Brings the predictions of a sample to the host, in one copy of 1 byte a pixel if that suffices.

        The sample keeps them, so that further metrics, which get the same one, wait for no copy of their own. Those
        must take predictions on the host, as those of this package and mmsegmentation's do.
        """
        predicted = sample['pred_sem_seg']
        labels = predicted['data']
        if labels.device.type != 'cpu':
            small = torch.uint8 if len(self.dataset_meta['classes']) <= 256 else labels.dtype
            predicted['data'] = labels.to(small).cpu().to(labels.dtype)

    def compute_metrics(self, results: list) -> OrderedDict:
        """Computes the summary as mmsegmentation does, and keeps the IoU of each class."""
        self.per_class = {}
        if not self.format_only:
            intersect, union, _, labels = (sum(area) for area in zip(*results))
            if not labels.sum():
                raise ValueError(f'no pixel of the {len(results)} images evaluated is labelled, so there is no IoU: '
                                 f'all are {self.ignore_index}, which is ignored. Are the label maps the right ones, '
                                 'and reduce_zero_label and ignore_index as they need?')
            iou = (100 * intersect / union).numpy()
            self.per_class = {name: None if np.isnan(value) else round(float(value), 2)
                              for name, value in zip(self.dataset_meta['classes'], iou)}
        return super().compute_metrics(results)

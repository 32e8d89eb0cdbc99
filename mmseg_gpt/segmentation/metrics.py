"""mmsegmentation's IoU metric, which here keeps the IoU of each class instead of only printing it."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from ..resources import command_of


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
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> OrderedDict:
        """Computes the summary as mmsegmentation does, and keeps the IoU of each class."""
        self.per_class = {}
        if not self.format_only:
            intersect, union, _, labels = (sum(area) for area in zip(*results))
            if not labels.sum():
                raise ValueError(f'no pixel of the {len(results)} images evaluated is labelled, so there is no IoU: '
                                 f'all are {self.ignore_index}, which is ignored. Are the label maps the right ones, '
                                 'and reduce_zero_label and ignore_index as they need?')
            iou = (100 * intersect / union).numpy().astype(np.float64)
            self.per_class = {name: None if np.isnan(value) else round(float(value), 2)
                              for name, value in zip(self.dataset_meta['classes'], iou)}
        return super().compute_metrics(results)

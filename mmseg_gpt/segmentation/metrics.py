"""mmsegmentation's IoU metric, which here keeps the IoU of each class instead of only printing it."""

from collections import OrderedDict

import numpy as np
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


@METRICS.register_module()
class PerClassIoUMetric(IoUMetric):
    """IoUMetric whose ``per_class`` holds the IoU of each class in percent, by its name, after ``evaluate``.

    The IoU is None for a class that occurs neither in the labels nor in the predictions. Everything else is as in
    ``mmseg.evaluation.IoUMetric``.

    Raises:
        ValueError: from ``evaluate``, if all pixels of all images are ignored; mmsegmentation's mIoU is nan then.
    """

    per_class: dict[str, float | None]

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

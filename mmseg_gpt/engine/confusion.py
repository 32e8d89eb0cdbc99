"""A confusion matrix beside the scores of a test: how often each class is taken for each other."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric


class ConfusionMetric(BaseMetric):
    """Metric that gives no score, but counts which class is predicted for which.

    It counts pixels of segmentations, and images of classifications with one class each. Of each image it keeps the
    pairs of classes that occur, so that memory stays small, and several processes count as one does.

    Args:
        ignore_index: Number of pixels in label maps that are not counted; no class of images is left out.

    Attributes:
        matrix: Counts (C, C) of int64 after ``evaluate``: rows are the true classes, columns the predicted ones. None
            before, and where there are no labels.
        classes: Names of the classes, or their numbers where the dataset has no names.
    """

    default_prefix = 'confusion'  # of no score, but without one MMEngine warns

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__(collect_device='cpu')
        self.ignore_index = ignore_index
        self.matrix: np.ndarray | None = None
        self.classes: list[str] = []

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Counts the pairs of classes in each sample."""
        self.results += [pairs_of(*classes_of(sample, self.ignore_index)) for sample in data_samples]

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict:
        """Adds up the pairs of all images; returns no score."""
        pairs, counts = (np.concatenate(part) for part in zip(*results))
        names = (self.dataset_meta or {}).get('classes')
        if len(pairs):
            size = len(names) if names else 1 + int(pairs.max())
            pairs, counts = pairs[(pairs < size).all(1)], counts[(pairs < size).all(1)]
            self.matrix = np.zeros((size, size), np.int64)
            np.add.at(self.matrix, tuple(pairs.T), counts)
            self.classes = [str(name) for name in names or range(size)]
        return {}


def classes_of(sample: dict, ignore_index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the true and the predicted class numbers of a sample, of the same length; empty where it has none.

    Args:
        sample: A sample of a segmentation or of a classification.
        ignore_index: True number of pixels that are left out.
    """
    if 'gt_sem_seg' in sample and 'pred_sem_seg' in sample:
        true, predicted = (sample[key]['data'].cpu().reshape(-1).long() for key in ('gt_sem_seg', 'pred_sem_seg'))
        labelled = true != ignore_index
        return true[labelled], predicted[labelled]
    true, predicted = (torch.as_tensor(sample.get(key, ())).reshape(-1).long().cpu() for key in (
        'gt_label', 'pred_label'))
    return (true, predicted) if len(true) == len(predicted) == 1 else (true[:0], predicted[:0])


def pairs_of(true: torch.Tensor, predicted: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Counts the pairs of classes.

    Args:
        true: True class numbers (N,), from 0.
        predicted: Predicted class numbers (N,), from 0.

    Returns:
        tuple: The pairs (n, 2) of a true and a predicted class that occur, and how often each does (n,).
    """
    if not len(true):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    size = 1 + int(predicted.max())
    counts = torch.bincount(true * size + predicted)
    pairs = counts.nonzero()[:, 0]
    return torch.stack([pairs // size, pairs % size], 1).cpu().numpy(), counts[pairs].cpu().numpy()

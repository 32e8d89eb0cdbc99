"""Answers as numbers, as lines and as pictures."""

import os
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor

from ..datasets.predicted import write_label_map
from .task import ServedTask

SHOWN = 3  # classes in the line of an image


def as_numbers(task: ServedTask, sample: BaseDataElement, probabilities: bool = False) -> dict:
    """Turns a task's answer into plain numbers and names.

    Args:
        task: The task.
        sample: Its answer for one image.
        probabilities: Whether a classification has those of all classes.

    Returns:
        dict: ``label``, ``class`` and ``score`` for a classification, and ``probabilities`` by class name if
        asked for. ``shares`` for a segmentation: the share of the pixels by class name, the largest first.
    """
    if 'pred_sem_seg' in sample:
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        shares = (counts / counts.sum()).tolist()
        ordered = sorted(zip(shares, labels.tolist()), key=lambda pair: -pair[0])
        return dict(shares={task.class_name(label): round(share, 6) for share, label in ordered})
    label = int(sample.pred_label)
    scores = [round(score, 6) for score in sample.pred_score.tolist()]
    found = {'label': label, 'class': task.class_name(label), 'score': scores[label]}
    if probabilities:
        found['probabilities'] = {task.class_name(i): score for i, score in enumerate(scores)}
    return found


def as_line(found: dict) -> str:
    """Writes the numbers of :func:`as_numbers` as a line to read."""
    if 'shares' not in found:
        return f'{found["class"]} {found["score"]:.3f}'
    shown = [f'{name} {share:.1%}' for name, share in list(found['shares'].items())[:SHOWN]]
    return ', '.join(shown + ['...'] * (len(found['shares']) > SHOWN))


class LabelWriter:
    """Writer of segmentations: label maps, and pictures of the image under the classes' colours.

    Args:
        task: The task.
        folder: Label maps are written into its folder ``labels``, as PNG with class numbers from 0; pictures into
            ``overlays``; probabilities, as .npy, float16 (C, H, W), into ``probabilities``, and the highest of each
            pixel, as PNG from 0 to 255, into ``confidence``.
        dataset_numbers: Whether label maps have the numbers of the dataset's own label files.
    """

    def __init__(self, task: ServedTask, folder: Path, dataset_numbers: bool = False) -> None:
        from mmseg.visualization import SegLocalVisualizer  # here, as classification does not need it
        self.task = task
        self.folder = folder
        self.values = task.label_values() if dataset_numbers else None
        self.written: dict[str, str] = {}  # the images by the names of what is written for them
        self.visualizer = SegLocalVisualizer(f'serving {folder}', alpha=0.5)

    def probability_file(self, name: str) -> Path:
        """Returns the .npy file for the probabilities of an image, and makes its folder.

        Args:
            name: The name of the image, as for :meth:`write`.
        """
        return self._file('probabilities', name, '.npy')

    def write(self, image: str, sample: BaseDataElement, name: str | None = None) -> dict[str, str]:
        """Writes the label map and the picture of an image, and the map of its confidence if it has probabilities.

        Args:
            image: The image file.
            sample: The task's answer. Its ``seg_probabilities``, if there are any, are in :meth:`probability_file`.
            name: The name of the files without suffix, which may have folders in it; by default the image's own.

        Returns:
            dict: Their paths, as ``label_map`` and ``overlay``, and ``probabilities`` and ``confidence``.

        Raises:
            ValueError: another image was written under this name.
        """
        name = name or Path(image).stem
        if os.path.abspath(other := self.written.setdefault(name, str(image))) != os.path.abspath(image):
            raise ValueError(f'{image} would overwrite what was written for {other}, {name} in {self.folder}: give '
                             'each a name of its own')
        labels = sample.pred_sem_seg.data[0].cpu().numpy()  # (H, W)
        paths = dict(label_map=self._file('labels', name), overlay=self._file('overlays', name))
        classes = len(self.task.classes) if self.task.classes else None
        write_label_map(labels.astype(np.int64), paths['label_map'], classes, self.values)
        self.visualizer.dataset_meta = self.colours(int(labels.max()) + 1)
        pixels = self.task.read(image)['img'][..., ::-1].astype(np.uint8)  # red first
        self.visualizer.add_datasample(
            'image', np.ascontiguousarray(pixels), sample, draw_gt=False, out_file=str(paths['overlay']))
        if 'seg_probabilities' in sample:
            paths.update(probabilities=self.probability_file(name), confidence=self._file('confidence', name))
            Image.fromarray(confidence(sample.seg_probabilities.data)).save(paths['confidence'])
        return {key: str(path) for key, path in paths.items()}

    def _file(self, part: str, name: str, suffix: str = '.png') -> Path:
        path = self.folder / part / f'{name}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def colours(self, number: int) -> dict[str, list]:
        """Returns names and colours of the first classes, with random colours if the checkpoint has none."""
        drawn = np.random.default_rng(0).integers(0, 256, (number, 3)).tolist()
        return dict(classes=[self.task.class_name(i) for i in range(number)], palette=self.task.palette or drawn)


def confidence(probabilities: Tensor) -> np.ndarray:
    """Returns the probability of the predicted class of each pixel, as uint8 (H, W): 255 is certain.

    Args:
        probabilities: (C, H, W). A single channel holds those of the foreground, and the surer of the two counts.
    """
    highest = probabilities[0].clone()
    for channel in probabilities[1:]:  # one by one, as all may be in a file and larger than memory
        highest = torch.maximum(highest, channel)
    if len(probabilities) == 1:
        highest = torch.maximum(highest, 1 - highest)
    return (255 * highest.float()).round().byte().numpy()

"""Answers as numbers, as lines and as pictures."""

import os
from collections.abc import Container, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..datasets.predicted import as_picture, write_label_map
from ..models.labels import confidence_of
from .task import ServedTask

SHOWN = 3  # classes in the line of an image
LARGEST_PICTURE = 4096  # side in pixels


def as_numbers(task: ServedTask, sample: BaseDataElement, probabilities: bool = False) -> dict:
    """Turns a task's answer into plain numbers and names.

    Args:
        task: The task.
        sample: Its answer for one image.
        probabilities: Whether to include the probabilities of all classes, for a classification.

    Returns:
        dict: ``label``, ``class`` and ``score`` for a classification, and ``probabilities`` by class name on
        request. ``shares`` for a segmentation: the share of the pixels by class name, the largest first.
    """
    if 'pred_sem_seg' in sample:
        counts = count_labels(label_map(sample))
        shares = (counts / counts.sum()).tolist()
        ordered = sorted(((shares[i], i) for i in np.flatnonzero(counts).tolist()), key=lambda pair: -pair[0])
        return dict(shares={task.class_name(label): round(share, 6) for share, label in ordered})
    label = int(sample.pred_label)
    scores = [round(score, 6) for score in sample.pred_score.tolist()]
    found = {'label': label, 'class': task.class_name(label), 'score': scores[label]}
    if probabilities:
        found['probabilities'] = {task.class_name(i): score for i, score in enumerate(scores)}
    return found


def label_map(sample: BaseDataElement) -> np.ndarray:
    """Returns the class numbers (H, W) that are predicted for an image."""
    labels = sample.pred_sem_seg.data[0].cpu().numpy()
    return labels.astype(np.int64) if labels.dtype.kind == 'f' else labels  # of a single channel in mmsegmentation


def count_labels(labels: np.ndarray) -> np.ndarray:
    """Counts the pixels of each class in a label map (H, W), some rows at a time; (C,) up to the highest class."""
    counts, rows = np.zeros(int(labels.max()) + 1, int), max(1, 2**22 // labels.shape[1])
    for top in range(0, len(labels), rows):
        counts += np.bincount(labels[top:top + rows].ravel(), minlength=len(counts))
    return counts


def as_line(found: dict) -> str:
    """Formats the numbers of :func:`as_numbers` as a line of text."""
    if 'shares' not in found:
        return f'{found["class"]} {found["score"]:.3f}'
    if not found['shares']:
        return 'no pixel holds anything'
    shown = [f'{name} {share:.1%}' for name, share in list(found['shares'].items())[:SHOWN]]
    return ', '.join(shown + ['...'] * (len(found['shares']) > SHOWN))


class LabelWriter:
    """Writes segmentations: label maps, and pictures of the image with the class colours over it.

    Args:
        task: The task.
        folder: Label maps are written into its folder ``labels``, as PNG with class numbers from 0; pictures into
            ``overlays``, of large images in a smaller size; the colours of the classes into ``legend.png``;
            probabilities, as .npy, float16 (C, H, W), into ``probabilities``, and the highest of each pixel, as PNG
            from 0 to 255, into ``confidence``.
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
        return self.file('probabilities', name, '.npy')

    def write(self, image: str, sample: BaseDataElement, name: str | None = None) -> dict[str, str]:
        """Writes the label map and the picture of an image, and the map of its confidence if it has probabilities.

        Args:
            image: The image file.
            sample: The task's answer. Its ``seg_probabilities`` are in :meth:`probability_file` if that was asked for.
            name: The name of the files without suffix, which may have folders in it; by default the image's own.

        Returns:
            dict: Their paths, as ``label_map`` and ``overlay``, and ``probabilities`` and ``confidence``.

        Raises:
            ValueError: another image was written under this name.
        """
        name = name or Path(image).stem
        self.claim(image, name)
        labels = label_map(sample)
        paths = dict(label_map=self.file('labels', name), overlay=self.file('overlays', name))
        classes = len(self.task.classes) if self.task.classes else None
        write_label_map(labels, paths['label_map'], classes, self.values)
        self.draw(as_picture(self.task.read(image)['img']), sample, paths['overlay'])
        if isinstance(file := sample.get('probabilities'), str):  # and not only in memory
            paths.update(probabilities=file)
        if 'seg_probabilities' in sample or 'seg_confidence' in sample:
            paths.update(confidence=self.file('confidence', name))
            certain = (sample.seg_confidence.data[0].numpy() if 'seg_confidence' in sample else
                       confidence(sample.seg_probabilities.data, self.task.threshold))
            Image.fromarray(certain).save(paths['confidence'])
        return {key: str(path) for key, path in paths.items()}

    def claim(self, image: str, name: str) -> None:
        """Reserves the output name ``name`` for ``image``.

        Args:
            image: The image file.
            name: The name of the files without suffix.

        Raises:
            ValueError: another image was written under this name.
        """
        if os.path.abspath(other := self.written.setdefault(name, str(image))) != os.path.abspath(image):
            raise ValueError(f'{image} would overwrite what was written for {other}, {name} in {self.folder}: give '
                             'each a name of its own')

    def draw(self, pixels: np.ndarray, sample: BaseDataElement, path: Path) -> None:
        """Draws the labels of a sample over its image (H, W, 3), and the legend before the first picture.

        A large image is first made smaller, to sides of 4,096 pixels at most.
        """
        from mmseg.structures import SegDataSample
        labels = label_map(sample)
        self.write_legend(int(labels.max()) + 1)
        scale = LARGEST_PICTURE / max(labels.shape)
        if scale < 1:
            size = tuple(max(1, round(side * scale)) for side in labels.shape[::-1])
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels.astype(np.uint16 if labels.max() > 255 else np.uint8, copy=False), size,
                                interpolation=cv2.INTER_NEAREST)
        # No tensor: NumPy would take that of a single pixel for a number.
        sample = SegDataSample(pred_sem_seg=PixelData(data=labels.astype(np.int64, copy=False)[None]))
        self.visualizer.dataset_meta = self.colours(int(labels.max()) + 1)
        self.visualizer.add_datasample('image', pixels, sample, draw_gt=False, out_file=str(path))

    def write_legend(self, number: int) -> None:
        """Draws the colours of the classes before the first picture.

        Args:
            number: How many there are at least; the task may know better.
        """
        legend = self.folder / 'legend.png'
        if len(self.written) == 1 or not legend.is_file():
            draw_legend(legend, **self.colours(len(self.task.classes or ()) or number))

    def file(self, part: str, name: str, suffix: str = '.png') -> Path:
        """Returns the file ``name`` in the folder ``part``, and makes its folder."""
        path = self.folder / part / f'{name}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def colours(self, number: int) -> dict[str, list]:
        """Returns names and colours of the first classes, with random colours if the checkpoint has none."""
        drawn = np.random.default_rng(0).integers(0, 256, (number, 3)).tolist()
        return dict(classes=[self.task.class_name(i) for i in range(number)], palette=self.task.palette or drawn)


def overlay(picture: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]],
            shown: Container[int] | None = None, opacity: float = 0.5) -> np.ndarray:
    """Lays the colours of classes over a picture, a few rows at a time.

    Args:
        picture: (H, W, 3) of uint8.
        labels: Class numbers (H, W).
        palette: A colour for each class.
        shown: The classes whose colour is laid over, by default all; others leave the picture as it is.
        opacity: Share of the colour, 0 to 1.

    Returns:
        ndarray: (H, W, 3) of uint8.
    """
    colours = np.array(palette, np.float32)
    shares = np.array([opacity * (shown is None or label in shown) for label in range(len(colours))], np.float32)
    drawn, rows = np.empty_like(picture), max(1, 2**20 // picture.shape[1])
    for top in range(0, len(picture), rows):
        part = labels[top:top + rows]
        share = shares[part][..., None]
        drawn[top:top + rows] = np.rint(picture[top:top + rows] * (1 - share) + colours[part] * share)
    return drawn


def draw_legend(path: Path, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
    """Draws the colours of classes with their names, one below the other, into a PNG."""
    line, font = 20, ImageFont.load_default(14)
    width = 3 * line + max(int(font.getlength(str(name))) for name in classes)
    picture = Image.new('RGB', (width, line * len(classes) + 10), 'white')
    pen = ImageDraw.Draw(picture)
    for i, (name, colour) in enumerate(zip(classes, palette)):
        top = 5 + i * line
        pen.rectangle((10, top + 3, 10 + line, top + line - 3), tuple(colour), 'black')
        pen.text((20 + line, top + 1), str(name), 'black', font)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def confidence(probabilities: Tensor, threshold: float | None = None) -> np.ndarray:
    """Returns the probability of the predicted class of each pixel, as uint8 (H, W): 255 is certain.

    Args:
        probabilities: (C, H, W).
        threshold: Of a single channel, as for :func:`confidence_of`.
    """
    highest = probabilities[0].clone()
    for channel in probabilities[1:]:  # one by one, as all may be in a file and larger than memory
        highest = torch.maximum(highest, channel)
    return confidence_of(highest, threshold).numpy()

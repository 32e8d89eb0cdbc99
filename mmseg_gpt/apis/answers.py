"""Answers as numbers, as lines and as pictures."""

from pathlib import Path

import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image

from .task import ServedTask

SHOWN = 3  # classes of an image in a line


def as_numbers(task: ServedTask, sample: BaseDataElement) -> dict:
    """Returns an answer as plain numbers.

    Args:
        task: The task that was asked.
        sample: Its answer.

    Returns:
        dict: For a classification ``label``, ``class`` and ``score``. For a segmentation ``shares``: the share of the
        pixels by the name of the class, the largest first.
    """
    if 'pred_sem_seg' in sample:
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        shares = (counts / counts.sum()).tolist()
        ordered = sorted(zip(shares, labels.tolist()), key=lambda pair: -pair[0])
        return dict(shares={task.class_name(label): round(share, 6) for share, label in ordered})
    label = int(sample.pred_label)
    return {'label': label, 'class': task.class_name(label), 'score': round(float(sample.pred_score[label]), 6)}


def as_line(found: dict) -> str:
    """What :func:`as_numbers` gave, for reading."""
    if 'shares' not in found:
        return f'{found["class"]} {found["score"]:.3f}'
    shown = [f'{name} {share:.1%}' for name, share in list(found['shares'].items())[:SHOWN]]
    return ', '.join(shown + ['...'] * (len(found['shares']) > SHOWN))


class LabelWriter:
    """Writes what a segmentation found: label maps, and pictures of the image under the classes' colours.

    Args:
        task: The task.
        folder: Label maps go into ``labels`` there, PNG with the numbers of classes from 0; pictures into ``overlays``.
    """

    def __init__(self, task: ServedTask, folder: Path) -> None:
        from mmseg.visualization import SegLocalVisualizer  # which classification does not need
        self.task = task
        self.folder = folder
        self.visualizer = SegLocalVisualizer(f'serving {folder}', alpha=0.5)

    def write(self, image: str, sample: BaseDataElement) -> dict[str, str]:
        """Writes the two files of an image, under its name.

        Args:
            image: The image file.
            sample: The answer of the task.

        Returns:
            dict: Their paths, as ``label_map`` and ``overlay``.
        """
        labels = sample.pred_sem_seg.data[0].cpu().numpy()  # (H, W)
        paths = {key: self.folder / part / f'{Path(image).stem}.png'
                 for key, part in (('label_map', 'labels'), ('overlay', 'overlays'))}
        paths['label_map'].parent.mkdir(parents=True, exist_ok=True)
        number = np.uint8 if labels.max() < 256 else np.uint16
        Image.fromarray(labels.astype(number)).save(paths['label_map'])
        self.visualizer.dataset_meta = self.colours(int(labels.max()) + 1)
        pixels = self.task.read(image)['img'][..., ::-1].astype(np.uint8)  # red first
        self.visualizer.add_datasample(
            'image', np.ascontiguousarray(pixels), sample, draw_gt=False, out_file=str(paths['overlay']))
        return {key: str(path) for key, path in paths.items()}

    def colours(self, number: int) -> dict[str, list]:
        """Names and colours of the first classes; the colours are drawn if the checkpoint has none."""
        drawn = np.random.default_rng(0).integers(0, 256, (number, 3)).tolist()
        return dict(classes=[self.task.class_name(i) for i in range(number)], palette=self.task.palette or drawn)

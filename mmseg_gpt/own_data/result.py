"""A finished adaptation: its files, its numbers, and predictions with it."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device

from ..apis.answers import as_numbers
from ..apis.task import Image, ServedTask, load_task
from .options import OwnDataError
from .run import RESULT


@dataclass(frozen=True)
class Adapted:
    """A model that was adapted to one's own images.

    Attributes:
        work_dir: The folder of everything.
        task: 'segmentation' or 'classification'.
        metric: 'mIoU' or 'accuracy'.
        score: In percent, of the images of ``measured_on``.
        measured_on: 'test', or 'val' where there were no test images.
        classes: Names of the classes.
        per_class: Scores of each class, in percent.
        config: The config, for ``train``, ``test`` and ``predict``.
        checkpoint: The best checkpoint of the validations.
        report: The report, as Markdown.
        pictures: Pictures of the best and the worst images.
        seconds: Time that training and testing took.
    """
    work_dir: Path
    task: str
    metric: str
    score: float
    measured_on: str
    classes: tuple[str, ...]
    per_class: list[dict]
    config: Path
    checkpoint: Path
    report: Path
    pictures: dict[str, list[Path]] = field(default_factory=dict)
    seconds: float = 0.

    def predict(self, image: Image) -> np.ndarray | dict:
        """Predicts an image.

        Args:
            image: A file, or the pixels (H, W, 3), uint8, blue first, as OpenCV reads them. After adapting with
                ``bands`` or ``scale``: all bands, (H, W, bands), in the order (red first) and the type of the files.

        Returns:
            The class numbers (H, W), uint8, of a segmentation; else a dict with ``label``, ``class`` and ``score``.
        """
        task = self.model
        with torch.no_grad():
            answer = task.predict([task.prepare(image)])[0]
        if self.task == 'segmentation':
            return answer.pred_sem_seg.data[0].to('cpu', torch.uint8).numpy()
        return as_numbers(task, answer)

    @cached_property
    def model(self) -> ServedTask:
        """The model with its preprocessing, on the GPU if there is one; loaded at its first use."""
        task = load_task(self.work_dir.name, self.config, self.checkpoint, frozen=False)
        task.model.to(get_device())
        return task


def load(work_dir: str | Path) -> Adapted:
    """Returns what ``mmseg-gpt adapt`` has left in a work directory, which may have been moved.

    Args:
        work_dir: The folder.

    Raises:
        OwnDataError: there is no finished adaptation.
    """
    work = Path(work_dir).absolute()
    try:
        result = json.loads((work / RESULT).read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise OwnDataError(f'{work} holds no finished adaptation: {RESULT} is not there') from None
    return Adapted(
        work, result['task'], result['metric'], result['score'], result['measured_on'], tuple(result['classes']),
        result['per_class'], work / Path(result['config']).name, work / Path(result['checkpoint']).name,
        work / 'report.md', {kind: [work / 'pictures' / Path(file).name for file, _ in files]
                             for kind, files in result['pictures'].items()}, result['seconds'])

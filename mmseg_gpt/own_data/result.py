"""A finished adaptation: its files, its numbers, and predictions with it."""

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device

from ..apis.answers import as_numbers, label_map
from ..apis.task import Image, ServedTask, load_task
from ..checkpoints import CheckpointError, fetch, read_file
from ..engine.shared_config import is_shared
from .options import OwnDataError
from .run import RESULT


@dataclass(frozen=True)
class Adapted:
    """A model that was adapted to one's own images.

    Attributes:
        work_dir: The folder of everything.
        task: 'segmentation' or 'classification'.
        metric: 'mIoU' or 'accuracy'.
        score: In percent, of the images of ``measured_on``; not a number if a shared model does not say it.
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
            The class numbers (H, W) of a segmentation, uint8 where there are up to 256 classes; else a dict with
            ``label``, ``class`` and ``score``.
        """
        task = self.model
        with torch.no_grad():
            answer = task.predict([task.prepare(image)])[0]
        if self.task == 'segmentation':
            return label_map(answer).astype(np.uint8 if task.model.decode_head.num_classes <= 256 else np.int64)
        return as_numbers(task, answer)

    @cached_property
    def model(self) -> ServedTask:
        """The model with its preprocessing, on the GPU if there is one; loaded at its first use."""
        task = load_task(self.work_dir.name, self.config, self.checkpoint, frozen=False)
        task.model.to(get_device())
        return task


def load(work_dir: str | Path) -> Adapted:
    """Returns what ``mmseg-gpt adapt`` has left in a work directory, which may have been moved; or a shared model.

    Args:
        work_dir: The folder; or ``hf://OWNER/NAME``, or an adapter file that ``mmseg-gpt push`` has made.

    Raises:
        OwnDataError: there is no finished adaptation.
        CheckpointError: the shared model cannot be fetched, or is refused.
    """
    if is_shared(str(work_dir)):
        return shared(str(work_dir))
    work = Path(work_dir).absolute()
    try:
        result = json.loads((work / RESULT).read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        raise OwnDataError(f'{work} holds no finished adaptation: {RESULT} is not there') from None
    return Adapted(
        work, result['task'], result['metric'], result['score'], result['measured_on'], tuple(result['classes']),
        result['per_class'], work / Path(result['config']).name, work / Path(result['checkpoint']).name,
        work / 'report.md', {kind: [work / 'pictures' / Path(file).name for file, _ in files]
                             for kind, files in result['pictures'].items()}, result['seconds'])


def shared(name: str) -> Adapted:
    """Returns a model of the hub, or of an adapter file, with what its author has measured.

    Raises:
        CheckpointError: it cannot be fetched, or is no adapter file.
    """
    file = fetch(name)
    content = read_file(file)
    if 'record' not in content.get('meta', {}):
        raise CheckpointError(f'{name} is no adapter file that mmseg-gpt push has made')
    record = content['meta']['record']
    results = record['results']
    metric = results.get('metric') or ''
    return Adapted(
        file.parent, record['task'], metric, results.get('scores', {}).get(metric, math.nan),
        results.get('measured_on') or '', tuple(record['classes'] or ()), results.get('per_class', []), file, file,
        file.with_name('README.md'))

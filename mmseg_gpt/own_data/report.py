"""What an adaptation leaves for people: a table of the classes, and pictures of the best and the worst images."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from ..engine.confusion import ConfusionMetric, classes_of
from ..engine.hooks.validation_pictures import show
from ..files import replacing
from ..wording import duration, markdown_table
from .look import NAMES, OwnData

MOST = 4  # pictures of each kind


class ConfusionByImage(ConfusionMetric):
    """Metric that counts confusions, and keeps a score of each image.

    Attributes:
        scores: By image file, the mean IoU in percent of the classes in it, or predicted in it; in classification, how
            probable the true class was thought, in percent.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.scores: dict[str, float] = {}

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Counts, and scores each image."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        for sample, (pairs, counts) in zip(data_samples, self.results[before:]):
            if not len(pairs):
                continue
            if 'pred_score' in sample:
                score = float(sample['pred_score'][int(classes_of(sample, self.ignore_index)[0])])
            else:
                score = mean_iou(pairs, counts)
            self.scores[sample['img_path']] = round(100 * score, 2)


def mean_iou(pairs: np.ndarray, counts: np.ndarray) -> float:
    """Returns the mean IoU of the classes that occur in an image or are predicted in it.

    Args:
        pairs: True and predicted classes (n, 2).
        counts: Number of pixels (n,) of each pair.
    """
    size = 1 + int(pairs.max())
    matrix = np.zeros((size, size))
    np.add.at(matrix, tuple(pairs.T), counts)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return float((matrix.diagonal()[union > 0] / union[union > 0]).mean())


def draw_extremes(runner: Runner, scores: Mapping[str, float], folder: Path) -> dict[str, list[Path]]:
    """Draws the images with the best and the worst scores, with their labels and predictions.

    Args:
        runner: After a test.
        scores: By image file.
        folder: Where to. The pictures of an earlier call are removed.

    Returns:
        dict: The pictures under 'best' and 'worst', the best and the worst first.
    """
    order = sorted(scores, key=scores.get)
    most = min(MOST, len(order) // 2 or len(order))
    chosen = dict(best=order[::-1][:most], worst=order[:most])
    folder.mkdir(parents=True, exist_ok=True)
    for old in (file for kind in chosen for file in folder.glob(f'{kind}_[0-9]_*.png')):
        old.unlink()
    dataset = runner.test_loop.dataloader.dataset
    places = {dataset.get_data_info(i)['img_path']: i for i in range(len(dataset))}
    runner.visualizer.dataset_meta = runner.test_evaluator.dataset_meta
    return {kind: [draw(runner, dataset[places[image]], folder / f'{kind}_{i}_{Path(image).stem}.png')
                   for i, image in enumerate(images, 1)] for kind, images in chosen.items()}


def draw(runner: Runner, sample: dict, file: Path) -> Path:
    """Draws one sample of a dataset with what the model says of it, and returns the picture's file."""
    import torch
    with torch.no_grad():
        answer = runner.model.test_step(pseudo_collate([sample]))[0]
    pixels = sample['inputs'][:3].float()
    pixels = pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)
    size = answer.ori_shape if 'pred_sem_seg' in answer else tuple(pixels.shape[1:])
    pixels = torch.nn.functional.interpolate(pixels[None], size, mode='bilinear', antialias=True)[0].clamp(0, 255)
    image = pixels.byte().permute(1, 2, 0).numpy()[..., ::-1].copy()  # the readers give blue first
    show(runner.visualizer, image, answer, file.name, out_file=str(file))
    return file


def write_report(path: Path, result: dict, data: OwnData, said: Sequence[str]) -> None:
    """Writes the report as Markdown.

    Args:
        path: The file.
        result: What is in ``result.json``.
        data: What was found.
        said: What the user was told before the training.
    """
    here = path.parent
    lines = [f'# {data.root.name}: {result["metric"]} {result["score"]:.2f}', '',
             f'{data.task.capitalize()} of {data.root}, measured on the {data.counts[data.measured]} '
             f'{NAMES[data.measured]} images with the best checkpoint of the validations, after '
             f'{duration(result["seconds"])}.', '']
    if result['absent']:
        lines += [f'The mean is over {len(data.classes) - len(result["absent"])} of {len(data.classes)} classes: '
                  f'{", ".join(result["absent"])} occur neither in these labels nor in the predictions.', '']
    lines += [table_of_classes(result, data), '', 'Which class is taken for which: [confusion.csv](confusion.csv)' + (
        ', ![confusion](confusion.png)' if (here / 'confusion.png').is_file() else ''), '']
    for kind, pictures in result['pictures'].items():
        lines += [f'## The {kind} images', '', 'The labels are on the left, the predictions on the right.' if
                  data.task == 'segmentation' else '', '']
        lines += [f'![{Path(name).name}]({quote(os.path.relpath(name, here))}) {score:.2f}' for name, score in pictures]
        lines.append('')
    lines += ['## Predict with it', '', '```python', *three_lines(here, data.task), '```', '',
              '## What was found, and why it was trained so', '', *(f'- {each}' for each in said if '\n' not in each)]
    with replacing(path) as unfinished:
        unfinished.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def table_of_classes(result: dict, data: OwnData) -> str:
    """Returns the classes with their scores and shares, as Markdown."""
    counted = data.pixels[data.measured]
    total = max(int(counted.sum()), 1)
    what = 'pixels' if data.task == 'segmentation' else 'images'
    columns = [name for name in result['per_class'][0] if name != 'class']
    rows = [[row['class'], *(number(row[name]) for name in columns), f'{count / total:.2%}']
            for row, count in zip(result['per_class'], counted)]
    return markdown_table(['class', *columns, f'share of the {what}'], rows)


def number(value: float | None) -> str:
    """Returns a score as text; '-' where there is none."""
    return '-' if value is None else f'{value:.2f}'


def scores_of_classes(matrix: np.ndarray, classes: Sequence[str], segments: bool) -> list[dict]:
    """Returns the scores of each class in percent; None where they are not defined.

    Args:
        matrix: Counts (C, C): rows are the true classes, columns the predicted ones.
        classes: Their names.
        segments: Whether the IoU is among them.
    """
    right, true, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    union = true + predicted - right

    def percent(part: float, whole: float) -> float | None:
        return round(100 * float(part) / float(whole), 2) if whole else None
    return [{'class': name, **({'IoU': percent(right[i], union[i])} if segments else {}),
             'recall': percent(right[i], true[i]), 'precision': percent(right[i], predicted[i])}
            for i, name in enumerate(classes)]


def three_lines(work_dir: Path, task: str) -> list[str]:
    """Returns the Python that predicts with the finished model."""
    return ['from mmseg_gpt.own_data import load', f'model = load({str(work_dir)!r})',
            'labels = model.predict(\'photo.jpg\')  # (height, width): numbers of model.classes' if
            task == 'segmentation' else 'print(model.predict(\'photo.jpg\'))  # its class and how probable it is']

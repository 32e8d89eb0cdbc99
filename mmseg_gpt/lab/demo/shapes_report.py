"""What the demo of classification leaves to be read: a table of its numbers and a picture of its predictions."""

import json
from pathlib import Path

from ...wording import markdown_table
from ..drawn.image_folder import image_path
from ..drawn.shapes import SHAPES
from .figures import plot_classified
from .report import leave, run_lines
from .results import circumstances, count_parameters

SHOWN = 8  # images of each class


def collect(work_dir: Path, seconds: dict[str, float], seed: int) -> dict:
    """Gathers the numbers of a finished demo, as :func:`results_table` takes them.

    Args:
        work_dir: Where its steps have left their files.
        seconds: How long each step took, by its name.
        seed: What the dataset was drawn with.
    """
    linear, gated = (json.loads((work_dir / step / 'metrics.json').read_text()) for step in ('test_linear', 'test'))
    return dict(
        accuracy=dict(chance=100 / len(SHAPES), linear=linear['accuracy/top1'], gated=gated['accuracy/top1']),
        parameters=count_parameters(gated, work_dir / 'adapt/adapted.pth'),
        **circumstances(seconds, seed, 'torch', 'mmengine', 'mmpretrain'))


def write_report(work_dir: Path, results: dict, config: str, test: int) -> None:
    """Writes results.json, results.md and predictions.png, and prints the table and what there is to look at.

    Args:
        work_dir: Where the demo's steps left their files.
        results: What :func:`collect` gives.
        config: The config of the adapted model.
        test: Number of test images of each class; the first of them are drawn.
    """
    (work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    paths = {name: [image_path(work_dir / 'data', 'test', name, i) for i in range(min(SHOWN, test))] for name in SHAPES}
    predicted = predict(config, work_dir / 'adapt/adapted.pth', [path for row in paths.values() for path in row])
    plot_classified(paths, predicted, work_dir / 'predictions.png')
    leave(work_dir, results_table(results), {
        'predictions.png': 'test images in rows of their class, each with the predicted one',
        'adapt/adapted.pth': 'the adapted model', 'linear/adapted.pth': 'the linear head alone'})


def predict(config: str, checkpoint: Path, images: list[Path]) -> dict[Path, str]:
    """Predicts the class of each image, with mmpretrain's own inferencer."""
    from mmpretrain import ImageClassificationInferencer
    found = ImageClassificationInferencer(config, pretrained=str(checkpoint))(list(map(str, images)), batch_size=40)
    print()  # mmpretrain's progress bar does not end its line
    return {path: each['pred_class'] for path, each in zip(images, found)}


def results_table(results: dict) -> str:
    """Formats the demo's results as Markdown.

    Args:
        results: ``accuracy`` in percent of 'chance', 'linear' and 'gated'; and what
            :func:`~mmseg_gpt.lab.demo.report.run_lines` takes.
    """
    accuracy = results['accuracy']
    rows = [('chance', f'{accuracy["chance"]:.1f}'),
            ('linear head alone', f'{accuracy["linear"]:.1f}'),
            ('**gated prompts and linear head**', f'**{accuracy["gated"]:.1f}**')]
    return '\n'.join(['# Gated Prompt Tuning on drawn shapes', '', markdown_table(('', 'accuracy'), rows), '',
                      *run_lines(results, 'head')])

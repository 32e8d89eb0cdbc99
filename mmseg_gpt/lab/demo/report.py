"""What the demo leaves to be read: a table of its numbers and a picture of its predictions."""

import json
from pathlib import Path

import cv2
import numpy as np

from ...wording import markdown_table
from ..drawn.dataset import image_path, label_path
from ..drawn.scenes import CLASSES
from .figures import plot_predictions


def read_labels(path: Path) -> np.ndarray:
    """Reads a label map (H, W) uint8 as it is in the file: 0 is "other"."""
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2:
        raise OSError(f'{path} is not a gray label map; draw the dataset or test again')
    return labels


def read_sample(root: Path, predictions: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads RGB image (H, W, 3), labels (H, W) and prediction (H, W) of a validation image, all uint8."""
    path = image_path(root, 'validation', index)
    image = cv2.imread(str(path))
    if image is None:
        raise OSError(f'{path} is not an image; draw the dataset again')
    labels = read_labels(label_path(root, 'validation', index))
    return image[..., ::-1], labels, read_labels(predictions / f'{path.stem}.png')


def majority_iou(root: Path, counts: dict[str, int]) -> tuple[str, float]:
    """Finds the class that is most frequent in training, and what predicting it everywhere scores.

    Args:
        root: Folder of the dataset.
        counts: Number of images to look at in 'training' and in 'validation'.

    Returns:
        tuple: The class, and its IoU on the validation images in percent. All other classes score 0.
    """
    pixels = {split: sum(np.bincount(read_labels(label_path(root, split, i)).ravel(), minlength=len(CLASSES) + 1)
                         for i in range(count))[1:] for split, count in counts.items()}  # "other" is not scored
    winner = int(pixels['training'].argmax())
    return CLASSES[winner], float(100 * pixels['validation'][winner] / pixels['validation'].sum())


def write_report(work_dir: Path, results: dict, validation: int) -> None:
    """Writes results.json, results.md and predictions.png, and prints the table and what there is to look at.

    Args:
        work_dir: Where the demo's steps left their files.
        results: The numbers, as :func:`results_table` takes them.
        validation: Number of validation images; the first of them are drawn.
    """
    (work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    shown = [read_sample(work_dir / 'data', work_dir / 'predictions', i) for i in range(min(8, validation))]
    plot_predictions(shown, work_dir / 'predictions.png')
    leave(work_dir, results_table(results), {
        'predictions.png': 'validation images, ground truth and prediction', 'gates.png': 'what the gates learnt',
        'attention.png': 'what CLS attends to', 'adapted/adapted.pth': 'the adapted model'})


def leave(work_dir: Path, table: str, files: dict[str, str]) -> None:
    """Writes the table, and prints it and what else there is to look at."""
    (work_dir / 'results.md').write_text(table)
    print(f'{table}\nLeft for you in {work_dir}:')
    for name, what in {'results.md': 'this table (results.json: with all digits)', **files,
                       'steps/': 'the full output of every step, and what is known of it'}.items():
        print(f'  {work_dir / name}  {what}')


def results_table(results: dict) -> str:
    """Formats the demo's results as Markdown.

    Args:
        results: ``single_scale``, ``multi_scale``, ``untrained`` and ``majority`` hold mIoU, the first two also
            per_class and the last also class; ``parameters`` holds trained, prompts and total, ``seconds``
            those of each step, ``versions`` those of packages; and there are ``seed`` and ``cpus``.
    """
    single, multi, majority = results['single_scale'], results['multi_scale'], results['majority']
    untrained = results['untrained']
    rows = [('**mIoU**', f'**{single["mIoU"]:.2f}**', f'**{multi["mIoU"]:.2f}**'),
            *((f'IoU {name}', show_iou(single, name), show_iou(multi, name)) for name in CLASSES),
            ('mIoU before adaptation', f'{untrained["mIoU"]:.2f}', ''),
            (f'mIoU of "{majority["class"]}" everywhere', f'{majority["mIoU"]:.2f}', '')]
    lines = ['# Gated Prompt Tuning on the drawn sample dataset', '',
             markdown_table(('', 'single scale', 'multi scale'), rows), '',
             *run_lines(results, 'heads')]
    return '\n'.join(lines)


def run_lines(results: dict, heads: str) -> list[str]:
    """Returns what the tables of the demos of drawings end with: parameters, seconds of each step, and versions."""
    trained, total = results['parameters']['trained'], results['parameters']['total']
    return [f'Trained: {trained:,} of {total:,} parameters ({trained / total:.1%}), of them '
            f'{results["parameters"]["prompts"]:,} in prompts, gates and temperatures and the rest in the {heads}.', '',
            *circumstance_lines(results)]


def circumstance_lines(results: dict) -> list[str]:
    """Returns the seconds of each step, the seed, and the versions, as lines of Markdown."""
    steps = results['seconds'] | {'in all': sum(results['seconds'].values())}
    return [markdown_table(('step', 'seconds'), [(name, f'{seconds:.0f}') for name, seconds in steps.items()]), '',
            f'Seed {results["seed"]}; {results["cpus"]} CPUs; '
            + ', '.join(f'{name} {version}' for name, version in results['versions'].items()) + '.', '']


def show_iou(metrics: dict, name: str) -> str:
    """Returns the IoU of a class as text; '-' where the class does not occur."""
    iou = metrics['per_class'][name]
    return '-' if iou is None else f'{iou:.2f}'

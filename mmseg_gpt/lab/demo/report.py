"""What the demo leaves to be read: a table of its numbers and a picture of its predictions."""

import json
from pathlib import Path

import cv2
import numpy as np

from ..drawn.dataset import image_path, label_path
from ..drawn.scenes import CLASSES, PALETTE

OTHER_COLOUR = (221, 221, 221)  # light gray


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
    rows = [('', 'single scale', 'multi scale'), ('---', '---:', '---:'),
            ('**mIoU**', f'**{single["mIoU"]:.2f}**', f'**{multi["mIoU"]:.2f}**'),
            *((f'IoU {name}', show_iou(single, name), show_iou(multi, name)) for name in CLASSES),
            ('mIoU before adaptation', f'{untrained["mIoU"]:.2f}', ''),
            (f'mIoU of "{majority["class"]}" everywhere', f'{majority["mIoU"]:.2f}', '')]
    lines = ['# Gated Prompt Tuning on the drawn sample dataset', '',
             *(f'| {" | ".join(row)} |' for row in rows), '',
             *run_lines(results, 'heads')]
    return '\n'.join(lines)


def run_lines(results: dict, heads: str) -> list[str]:
    """Returns what the tables of both demos end with: parameters, seconds of each step, and versions."""
    trained, total = results['parameters']['trained'], results['parameters']['total']
    return [f'Trained: {trained:,} of {total:,} parameters ({trained / total:.1%}), of them '
            f'{results["parameters"]["prompts"]:,} in prompts, gates and temperatures and the rest in the {heads}.', '',
            '| step | seconds |', '| --- | ---: |',
            *(f'| {name} | {seconds:.0f} |' for name, seconds in results['seconds'].items()),
            f'| in all | {sum(results["seconds"].values()):.0f} |', '',
            f'Seed {results["seed"]}; {results["cpus"]} CPUs; '
            + ', '.join(f'{name} {version}' for name, version in results['versions'].items()) + '.', '']


def show_iou(metrics: dict, name: str) -> str:
    """Returns the IoU of a class as text; '-' where the class does not occur."""
    iou = metrics['per_class'][name]
    return '-' if iou is None else f'{iou:.2f}'


def colourise(labels: np.ndarray) -> np.ndarray:
    """Turns a label map (H, W) with values 0 to 9 into RGB (H, W, 3) uint8; "other" has its own colour."""
    return np.array([OTHER_COLOUR, *PALETTE], np.uint8)[labels]


def plot_predictions(samples: list[tuple[np.ndarray, np.ndarray, np.ndarray]], out: Path) -> None:
    """Draws rows of image, ground truth and prediction, two samples in a row, over a legend of the classes.

    Args:
        samples: RGB image (H, W, 3), label map (H, W) and predicted label map (H, W) of each.
        out: A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    rows = -(-len(samples) // 2)
    figure = Figure(figsize=(12, 2 * rows + 0.9), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 6, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for i, (image, labels, prediction) in enumerate(samples):
        for j, (title, picture) in enumerate((('image', image), ('ground truth', colourise(labels)),
                                              ('prediction', colourise(prediction)))):
            axis = axes[i // 2, i % 2 * 3 + j]
            axis.imshow(picture, interpolation='nearest')
            if i < 2:
                axis.set_title(title, fontsize=11)
    patches = [Patch(facecolor=np.array(c) / 255, label=name)
               for name, c in zip((*CLASSES, 'other'), (*PALETTE, OTHER_COLOUR))]
    figure.legend(handles=patches, loc='lower center', ncols=len(patches), frameon=False, fontsize=10,
                  handlelength=1.2, columnspacing=1.2)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.35 / (2 * rows + 0.9), bottom=0.5 / (2 * rows + 0.9),
                           wspace=0.04, hspace=0.04)
    figure.savefig(out)

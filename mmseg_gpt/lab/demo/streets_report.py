"""What the demonstration on photographs leaves: a table of the classes and a picture of segmented streets."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ...wording import markdown_table
from .figures import draw_triples
from .report import circumstance_lines, leave, show_iou
from .results import circumstances
from .streets import CAMVID, gray

SHOWN = 4  # streets in the picture
VOID = (0, 0, 0)


def collect(work_dir: Path, data: Path, weights: str, seconds: dict[str, float], seed: int) -> dict:
    """Gathers the numbers of a finished demonstration.

    Args:
        work_dir: Where its steps have left their files.
        data: The copy of CamVid.
        weights: What the file of the ViT is.
        seconds: How long each step took, by its name.
        seed: The seed of the training.

    Returns:
        dict: What :func:`results_table` formats.
    """
    metrics = json.loads((work_dir / 'test/metrics.json').read_text())
    masks = [mask for _, mask in tested_pairs(work_dir, data)]
    pixels = sum(np.bincount(gray(mask).ravel(), minlength=CAMVID.ignored + 1) for mask in masks)[:CAMVID.ignored]
    return dict(metrics, weights=weights, images=len(masks), shares=(pixels / pixels.sum()).tolist(),
                **circumstances(seconds, seed, 'torch', 'mmengine', 'mmseg'))


def tested_pairs(work_dir: Path, data: Path) -> list[tuple[Path, Path]]:
    """Returns the images and masks of the list of test images."""
    with open(work_dir / 'lists/test.csv', encoding='utf-8', newline='') as file:
        return [(data / row['image'], data / row['mask']) for row in csv.DictReader(file)]


def write_report(work_dir: Path, data: Path, results: dict) -> None:
    """Writes results.json, results.md and streets.png, and prints the table, what there is to look at, and the score.

    Args:
        work_dir: Where the steps left their files.
        data: The copy of CamVid.
        results: What :func:`collect` gives.
    """
    (work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    draw_streets(work_dir, data, results)
    leave(work_dir, results_table(results), {
        'streets.png': 'streets, their labels and what was predicted',
        'predictions/': 'the predicted classes of all test images', 'adapted/adapted.pth': 'the trained model'})
    print(f'\nmIoU: {results["mIoU"]:.2f}')


def draw_streets(work_dir: Path, data: Path, results: dict) -> None:
    """Draws a few streets, spread over the test images, with labels, predictions, and the IoU of each class."""
    pairs = tested_pairs(work_dir, data)
    count = min(SHOWN, len(pairs))
    chosen = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]
    triples = []
    for image, mask in chosen:
        with Image.open(image) as opened:
            photo = np.asarray(opened.convert('RGB'))
        predicted = gray(work_dir / 'predictions' / f'{image.stem}.png')
        triples.append((photo, in_colours(gray(mask)), in_colours(predicted)))
    colours = {f'{name} {show_iou(results, name)}': colour for name, colour in zip(CAMVID.classes, CAMVID.palette)}
    draw_triples(triples, colours | {'no class': VOID}, work_dir / 'streets.png', across=2, width=2.6, height=1.95,
                 lines=2)


def in_colours(labels: np.ndarray) -> np.ndarray:
    """Returns labels (H, W) as a picture (H, W, 3) in the colours of the classes."""
    table = np.zeros((256, 3), np.uint8)
    table[:len(CAMVID.palette)] = CAMVID.palette
    return table[labels]


def results_table(results: dict) -> str:
    """Formats the results as Markdown.

    Args:
        results: What :func:`collect` gives.
    """
    trained, total = results['parameters']['trained'], results['parameters']['total']
    rows = [(name, show_iou(results, name), f'{share:.1%}') for name, share in zip(CAMVID.classes, results['shares'])]
    return '\n'.join([
        '# Streets of CamVid, segmented with a frozen ViT-S/14', '',
        markdown_table(('class', 'IoU', 'share of the pixels'),
                       [*rows, ('**mean**', f'**{results["mIoU"]:.2f}**', '')]), '',
        f'Measured on {results["images"]} test images, which no choice was made on. The ViT: {results["weights"]}.',
        f'Trained: a linear head of {trained:,} parameters ({trained / total:.2%} of the model).', '',
        *circumstance_lines(results)])

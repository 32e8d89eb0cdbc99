"""Confusion matrices as tables, in words and as pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import replacing
from .figures import new_figure, writing

MOST_DRAWN = 40  # classes of a picture; the names and shares of more cannot be read
CORNER = 'true class (rows), predicted (columns)'


def shares(matrix: np.ndarray) -> np.ndarray:
    """Divides each row of a confusion matrix (C, C) by its sum; the rows of classes that do not occur are nan.

    Args:
        matrix: Counts; rows are the true classes, columns the predicted ones.
    """
    totals = matrix.sum(1, keepdims=True)
    return np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)


def most_confused(matrix: np.ndarray, classes: Sequence[str], most: int = 5) -> list[str]:
    """Says which classes are most often taken for another, those first of which the largest share is.

    Args:
        matrix: Counts (C, C); rows are the true classes, columns the predicted ones.
        classes: Names of the classes.
        most: Number of pairs.

    Returns:
        list: Such as ``12.3 % of tree is called grass``.
    """
    wrong = np.nan_to_num(shares(matrix))
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:most]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    return [f'{wrong[true, predicted]:.1%} of {classes[true]} is called {classes[predicted]}'.replace('%', ' %')
            for true, predicted in pairs if wrong[true, predicted] > 0]


def write_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> list[Path]:
    """Writes a confusion matrix as CSV, once with counts and once with shares of the true class, and draws it as PNG.

    Args:
        matrix: Counts (C, C); rows are the true classes, columns the predicted ones.
        classes: Names of the classes. More than 40 are not drawn.
        path: The CSV of the counts. That of the shares is beside it with ``_shares`` in its name, empty where a class
            does not occur; the picture has the suffix .png.

    Returns:
        list: The files.

    Raises:
        ValueError: a file cannot be written.
    """
    ratios = [['' if np.isnan(share) else f'{share:.6f}' for share in row] for row in shares(matrix)]
    tables = {path: matrix.tolist(), path.with_stem(f'{path.stem}_shares'): ratios}
    for file, rows in tables.items():
        with writing(file), replacing(file) as unfinished, unfinished.open('w', newline='', encoding='utf-8') as opened:
            writer = csv.writer(opened, lineterminator='\n')
            writer.writerow([CORNER, *classes])
            writer.writerows([name, *row] for name, row in zip(classes, rows, strict=True))
    if len(classes) > MOST_DRAWN:
        return list(tables)
    return [*tables, draw(matrix, classes, path.with_suffix('.png'))]


def draw(matrix: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draws the shares of each true class as a PNG, with their percents."""
    side = max(4., 1.5 + 0.35 * len(classes))
    figure, ((axis, ), ) = new_figure(width=side + 0.8, height=side)
    ratios = shares(matrix)
    image = axis.imshow(ratios, cmap='Blues', vmin=0, vmax=1)
    for true, predicted in zip(*np.nonzero(np.nan_to_num(ratios) >= 0.005)):
        share = ratios[true, predicted]
        axis.text(predicted, true, f'{100 * share:.0f}', ha='center', va='center', fontsize=7,
                  color='white' if share > 0.6 else 'black')
    axis.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axis.set_yticks(range(len(classes)), classes, fontsize=8)
    axis.grid(False)  # lines would strike through the numbers
    axis.set(xlabel='predicted', ylabel='true')
    figure.colorbar(image, ax=axis, label='share of the true class', shrink=0.7)
    with writing(path), replacing(path) as unfinished:
        figure.savefig(unfinished, format='png', dpi=150, bbox_inches='tight')
    return path

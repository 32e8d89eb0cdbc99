"""The picture of a survey of datasets."""

from pathlib import Path

import numpy as np

from ..datasets.survey import Survey
from .figures import in_style, line_style, new_figure


@in_style
def plot_classes(surveys: dict[str, Survey], path: Path) -> bool:
    """Draws the share of each class in each split, on a logarithmic scale; returns False if there are no labels."""
    labelled = {split: found for split, found in surveys.items() if found.counts.any()}
    if not labelled:
        return False
    classes = max((found.classes for found in labelled.values()), key=len)
    figure, ((axis, ), ) = new_figure(width=max(6, 0.14 * len(classes)), height=4)
    for i, (split, found) in enumerate(labelled.items()):
        share = found.counts / found.counts.sum()
        axis.plot(np.arange(len(share)), np.where(share > 0, share, np.nan), markersize=4, label=split,
                  **line_style(i) | dict(linestyle=''))
    axis.set(yscale='log', ylabel='share of labels', xlim=(-1, len(classes)))
    axis.set_xticks(range(len(classes)), classes, rotation=90, fontsize=6)
    axis.legend()
    figure.savefig(path)
    return True

"""The pictures of both demos: what was predicted for some of the images."""

from pathlib import Path

import numpy as np

from ...analysis.figures import in_style, new_figure
from ..drawn.scenes import CLASSES, PALETTE

OTHER_COLOUR = (221, 221, 221)  # light grey
DPI = 100


def colourise(labels: np.ndarray) -> np.ndarray:
    """Returns a label map (H, W) with values 0 to 9 as RGB (H, W, 3) uint8; "other" has a colour of its own."""
    return np.array([OTHER_COLOUR, *PALETTE], np.uint8)[labels]


@in_style
def plot_predictions(samples: list[tuple[np.ndarray, np.ndarray, np.ndarray]], out: Path) -> None:
    """Draws rows of image, ground truth and prediction, two samples in a row, over a legend of the classes.

    Args:
        samples: RGB image (H, W, 3), label map (H, W) and predicted label map (H, W) of each.
        out: A PNG file.
    """
    pictures = [(image, colourise(labels), colourise(prediction)) for image, labels, prediction in samples]
    colours = dict(zip((*CLASSES, 'other'), (*PALETTE, OTHER_COLOUR)))
    draw_triples(pictures, colours, out, across=2, width=2., height=2., lines=1)


@in_style
def draw_triples(triples: list[tuple[np.ndarray, np.ndarray, np.ndarray]], colours: dict[str, tuple[int, int, int]],
                 out: Path, across: int, width: float, height: float, lines: int) -> None:
    """Draws rows of image, ground truth and prediction over a legend.

    Args:
        triples: Three RGB pictures (H, W, 3) of each sample.
        colours: RGB colours by what the legend says of them.
        out: A PNG file.
        across: Samples in a row.
        width: Of a picture, in inches.
        height: Of a picture, in inches.
        lines: Of the legend.
    """
    from matplotlib.patches import Patch
    rows = -(-len(triples) // across)
    legend = 0.3 + 0.2 * lines
    whole = height * rows + 0.4 + legend  # in inches, with the titles and the legend
    figure, axes = new_figure(rows, 3 * across, width, whole / rows, layout='none')  # the pictures nearly touch
    for axis in axes.flat:
        axis.axis('off')
    for i, triple in enumerate(triples):
        for j, (title, picture) in enumerate(zip(('image', 'ground truth', 'prediction'), triple)):
            axis = axes[i // across, i % across * 3 + j]
            axis.imshow(picture, interpolation='nearest')
            if i < across:
                axis.set_title(title, fontsize=11)
    patches = [Patch(facecolor=np.array(colour) / 255, label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc='lower center', ncols=-(-len(patches) // lines), handlelength=1.2,
                  columnspacing=1.2)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.35 / whole, bottom=legend / whole, wspace=0.04, hspace=0.04)
    figure.savefig(out, dpi=DPI)


@in_style
def plot_classified(paths: dict[str, list[Path]], predicted: dict[Path, str], out: Path) -> None:
    """Draws images in a row for each class, under each the predicted class, in red where it is another.

    Args:
        paths: The images of each class.
        predicted: The predicted class of each image.
        out: A PNG file.
    """
    from PIL import Image
    columns = len(next(iter(paths.values())))
    width = 1.1 * columns + 1  # in inches, with the names of the classes
    figure, axes = new_figure(len(paths), columns, width / columns, 1.2, layout='none')
    for across, (name, row) in zip(axes, paths.items()):
        across[0].text(-0.15, 0.5, name, transform=across[0].transAxes, ha='right', va='center', fontsize=11)
        for axis, path in zip(across, row):
            axis.axis('off')
            axis.imshow(np.asarray(Image.open(path)), interpolation='nearest')
            axis.text(0.5, -0.04, predicted[path], transform=axis.transAxes, ha='center', va='top', fontsize=8,
                      color='black' if predicted[path] == name else 'red')
    figure.subplots_adjust(left=1 / width, right=0.99, top=0.99, bottom=0.03, wspace=0.1, hspace=0.25)
    figure.savefig(out, dpi=DPI)

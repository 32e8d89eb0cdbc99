"""Writing drawn scenes to disk in ADE20K's layout."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from .folder import draw_files
from .scenes import CLASSES, draw_scene

# Version of the drawing. Raise it when the drawing changes, so that older datasets are drawn anew.
DRAWING = 1
SPLITS = ('training', 'validation')


def make_dataset(root: str | Path, training: int = 1000, validation: int = 100, size: int = 96, seed: int = 0,
                 progress: Callable[[int, int], None] = lambda done, total: None, processes: int | None = None) -> bool:
    """Draws ``root/images/SPLIT/*.jpg`` and ``root/annotations/SPLIT/*.png``, unless they are there.

    Labels are 8-bit gray, 0 for "other" and i + 1 for ``CLASSES[i]``: load them with
    ``reduce_zero_label=True``. ``root/manifest.json`` holds the parameters; if they are the same and the
    files are complete nothing is done, otherwise the images are drawn anew.

    Args:
        root: Folder of the dataset.
        training: Number of training images.
        validation: Number of validation images.
        size: Side of an image in pixels, at least 32.
        seed: The same seed gives the same files, whatever the number of processes.
        progress: Called with the number of images drawn and the number of all images.
        processes: Processes to draw with; default one for each CPU.

    Returns:
        bool: False if the dataset was there already.

    Raises:
        ValueError: a number is too small.
        FileExistsError: ``root`` holds images that this function has not drawn.
    """
    if size < 32 or training < 1 or validation < 1:
        raise ValueError('a sample dataset needs a size of at least 32 and an image in each split, '
                         f'got size={size}, training={training}, validation={validation}')
    root = Path(root)
    counts = dict(zip(SPLITS, (training, validation)))
    settings = dict(drawing=DRAWING, classes=list(CLASSES), images=counts, size=size, seed=seed)
    jobs = {(split, i): [image_path(root, split, i), label_path(root, split, i)]
            for split in SPLITS for i in range(counts[split])}
    return draw_files(root, settings, jobs, partial(write_scene, root, size, seed), progress, processes)


def write_scene(root: Path, size: int, seed: int, job: tuple[str, int]) -> None:
    """Draws and writes image number ``job[1]`` of split ``job[0]``; it depends on nothing drawn before."""
    split, index = job
    image, labels = draw_scene(np.random.default_rng([seed, SPLITS.index(split), index]), size)
    for path, pixels, options in ((image_path(root, split, index), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]),
                                  (label_path(root, split, index), labels, [])):
        if not cv2.imwrite(str(path), pixels, options):
            raise OSError(f'{path} could not be written; is the disk full?')


def image_path(root: Path, split: str, index: int) -> Path:
    """Returns the path of image ``index`` of a split."""
    return root / 'images' / split / f'{index:05d}.jpg'


def label_path(root: Path, split: str, index: int) -> Path:
    """Returns the path of the labels of image ``index`` of a split."""
    return root / 'annotations' / split / f'{index:05d}.png'

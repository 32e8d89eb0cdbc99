"""Writing drawn shapes to disk as an image folder: each split has a folder, with a folder for each class in it."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .folder import Progress, draw_files
from .shapes import BLOBS, ROUGH, SHAPES, SMOOTH, blob, draw_shape

# Version of the drawing. Raise it when the drawing changes, so that older datasets are drawn anew.
DRAWING = 1
SPLITS = ('pretrain', 'train', 'test')


def make_image_folder(root: str | Path, pretraining: int = 400, training: int = 300, test: int = 100, size: int = 32,
                      seed: int = 0, progress: Progress = lambda done, total: None,
                      processes: int | None = None) -> bool:
    """Draws ``root/{train,test}/CLASS/*.png`` of ``SHAPES``, and blobs in ``root/pretrain``, unless they are there.

    Args:
        root: Folder of the dataset.
        pretraining: Number of images of each blob.
        training: Number of training images of each class.
        test: Number of test images of each class.
        size: Side of an image in pixels, at least 16.
        seed: The same seed gives the same images, whatever the number of processes.
        progress: Called with the number of images drawn and the number of all images.
        processes: Processes to draw with; default one for each CPU.

    Returns:
        bool: False if the dataset was there already.

    Raises:
        ValueError: a number is too small.
        FileExistsError: ``root`` holds images that this function has not drawn.
    """
    if size < 16 or min(pretraining, training, test) < 1:
        raise ValueError('a dataset of shapes needs a size of at least 16 and an image of each class in each split, '
                         f'got size={size}, pretraining={pretraining}, training={training}, test={test}')
    root = Path(root)
    counts = dict(zip(SPLITS, (pretraining, training, test)))
    settings = dict(drawing=DRAWING, classes=list(SHAPES), blobs=BLOBS, images=counts, size=size, seed=seed)
    jobs = {(split, name, i): [image_path(root, split, name, i)]
            for split, number in counts.items() for name in classes(split) for i in range(number)}
    return draw_files(root, settings, jobs, partial(write_shape, root, size, seed), progress, processes)


def classes(split: str) -> list[str]:
    """Returns the classes of a split, sorted by name as by number."""
    return [f'blob_{i:02d}' for i in range(BLOBS)] if split == 'pretrain' else list(SHAPES)


def image_path(root: Path, split: str, name: str, index: int) -> Path:
    """Returns the path of image ``index`` of a class."""
    return root / split / name / f'{index:05d}.png'


def write_shape(root: Path, size: int, seed: int, job: tuple[str, str, int]) -> None:
    """Draws and writes one image of a split and class; it depends on nothing drawn before."""
    split, name, index = job
    label = classes(split).index(name)
    outlines, rough = (blob(label), SMOOTH) if split == 'pretrain' else (SHAPES[name], ROUGH)
    rng = np.random.default_rng([seed, SPLITS.index(split), label, index])
    Image.fromarray(draw_shape(rng, outlines, size, rough)).save(image_path(root, *job))

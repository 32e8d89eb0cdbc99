"""The drawn datasets: scenes in ADE20K's layout, the others with a folder for each split, and in it for each class.

Every split has images of its own: hyperparameters are chosen on 'val', and 'test' is for the results.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..drawn.folder import Progress, draw_files
from .drawing import CLASSIFIED, draw_small_scene

# Raise it when the drawing changes, so that datasets drawn by older code are drawn anew.
DRAWING = 1
SIZE = 48  # side of an image in pixels
SEED = 0
SPLITS = ('train', 'val', 'test')
SCENES = 'scenes'

ImagePlace = tuple[str, str, int]  # dataset, split, and number of the image
Counts = Mapping[str, Mapping[str, int]]


def draw_datasets(root: str | Path, counts: Counts, progress: Progress = lambda done, total: None,
                  processes: int | None = None) -> bool:
    """Draws all datasets, unless they are there.

    Args:
        root: Their folder: ``root/scenes/{images,annotations}/SPLIT/*.png`` and
            ``root/{pretraining,breeds,distances}/SPLIT/CLASS/*.png``, see :mod:`.drawing`.
        counts: By dataset and split, the number of images; they are shared out among the classes.
        progress: Called with the number of images drawn and the number of all images.
        processes: Processes to draw with; default one for each CPU.

    Returns:
        bool: False if they were there already.

    Raises:
        FileExistsError: ``root`` holds images that this function has not drawn.
    """
    root = Path(root)
    jobs = {(name, split, i): files_of(root, (name, split, i))
            for name, splits in counts.items() for split, number in splits.items() for i in range(number)}
    return draw_files(root, settings_of_data(counts), jobs, partial(write_image, root), progress, processes)


def settings_of_data(counts: Counts) -> dict:
    """Returns the settings that decide the images."""
    return dict(drawing=DRAWING, images={name: dict(splits) for name, splits in counts.items()}, size=SIZE, seed=SEED)


def class_of(place: ImagePlace) -> str:
    """Returns the class of an image; there are equally many of each, but for a remainder."""
    names = CLASSIFIED[place[0]][0]
    return names[place[2] % len(names)]


def files_of(root: Path, place: ImagePlace) -> list[Path]:
    """Returns the files of an image: the image itself, and the labels of a scene."""
    dataset, split, index = place
    if dataset == SCENES:
        return [root / dataset / kind / split / f'{index:05d}.png' for kind in ('images', 'annotations')]
    return [root / dataset / split / class_of(place) / f'{index:05d}.png']


def write_image(root: Path, place: ImagePlace) -> None:
    """Draws and writes one image; it depends on nothing drawn before."""
    dataset, split, index = place
    names = (SCENES, *CLASSIFIED)
    rng = np.random.default_rng([SEED, names.index(dataset), SPLITS.index(split), index])
    if dataset == SCENES:
        image, labels = draw_small_scene(rng, SIZE)
        drawn = [image[..., ::-1], labels]
    else:
        drawn = [CLASSIFIED[dataset][1](rng, class_of(place), SIZE)[..., ::-1]]
    for path, pixels in zip(files_of(root, place), drawn):
        if not cv2.imwrite(str(path), pixels):
            raise OSError(f'{path} could not be written; is the disk full?')

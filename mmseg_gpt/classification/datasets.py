"""Datasets that mmpretrain lacks, in the layouts of their publishers, and a held-out part of any dataset."""

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import mat4py
from mmengine.fileio import join_path, list_from_file
from mmpretrain.datasets import BaseDataset, CustomDataset
from mmpretrain.registry import DATASETS

# Number of images in the list of each split of VTAB-1K; a test set has as many as its task.
VTAB_IMAGES = dict(train800=800, val200=200, train800val200=1000)


@DATASETS.register_module()
class StanfordDogs(BaseDataset):
    """Stanford Dogs: 12,000 images to train and 8,580 to test, of 120 breeds.

    Source: http://vision.stanford.edu/aditya86/ImageNetDogs

    Args:
        data_root: Folder with ``Images/n02085620-Chihuahua/*.jpg`` and ``lists/{train,test}_list.mat``.
        split: 'train' or 'test'.
        **options: Further arguments of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: the split is unknown, or the list is damaged or contradicts itself.
    """

    def __init__(self, data_root: str, split: str = 'train', **options) -> None:
        check_split(split, ('train', 'test'))
        super().__init__(ann_file=f'lists/{split}_list.mat', data_root=data_root, data_prefix='Images',
                         test_mode=split == 'test', **options)

    def load_data_list(self) -> list[dict]:
        """Reads the list of images and labels, and names the classes after their folders."""
        files, labels = read_lists(self.ann_file, 'file_list', 'labels')
        folders: dict[int, str] = {}
        for i, (file, label) in enumerate(zip(files, labels), 1):
            folder = folders.setdefault(label, file.partition('/')[0])
            if not file.startswith(f'{folder}/'):
                raise ValueError(f'{self.ann_file}, entry {i}: {file} has the label {label}, which is that of {folder}')
        if not folders or sorted(folders) != list(range(1, len(set(folders.values())) + 1)):
            raise ValueError(f'{self.ann_file}: the labels must be 1, 2, ... with a folder each, got {folders}')
        names = tuple(folders[label].partition('-')[2] for label in sorted(folders))
        self._metainfo.setdefault('classes', names)
        return [dict(img_path=join_path(self.img_prefix, file), gt_label=int(label) - 1)
                for file, label in zip(files, labels)]


@DATASETS.register_module()
class NABirds(BaseDataset):
    """NABirds: 23,929 images to train and 24,633 to test, of 555 classes.

    The class numbers in the files are those of a taxonomy, with gaps. The ones that images have become 0, 1, ... in
    ascending order, as in the lists of Visual Prompt Tuning (https://github.com/KMnP/vpt). Source:
    https://dl.allaboutbirds.org/nabirds

    Args:
        data_root: Folder with ``images/0817/*.jpg``, ``images.txt``, ``image_class_labels.txt``,
            ``train_test_split.txt`` and ``classes.txt``.
        split: 'train' or 'test'.
        **options: Further arguments of mmpretrain's ``BaseDataset``.

    Raises:
        ValueError: the split is unknown, or a line is malformed; the message names the file and the line.
    """

    def __init__(self, data_root: str, split: str = 'train', **options) -> None:
        check_split(split, ('train', 'test'))
        self.split = split
        super().__init__(ann_file='images.txt', data_root=data_root, data_prefix='images', test_mode=split == 'test',
                         **options)

    def load_data_list(self) -> list[dict]:
        """Joins the four lists by the images' identifiers."""
        images, numbers, splits, names = (read_table(join_path(self.data_root, f'{name}.txt')) for name in (
            'images', 'image_class_labels', 'train_test_split', 'classes'))
        used = {row.number: row for row in numbers.values()}
        label_of = {number: label for label, number in enumerate(sorted(used))}
        self._metainfo.setdefault('classes', tuple(
            find_entry(names, str(number), 'classes.txt', used[number]).value for number in label_of))
        samples = []
        for key, image in images.items():
            label = label_of[find_entry(numbers, key, 'image_class_labels.txt', image).number]
            row = find_entry(splits, key, 'train_test_split.txt', image)
            if row.number not in (0, 1):
                raise ValueError(f'{row.where}: 1 (train) or 0 (test) is needed, not "{row.value}"')
            if row.number == (self.split == 'train'):
                samples.append(dict(img_path=join_path(self.img_prefix, image.value), gt_label=label))
        return samples


@DATASETS.register_module()
class VTABTask(CustomDataset):
    """One of the 19 tasks of VTAB-1K, as image files and lists with lines such as ``images/train800/000000.jpg 20``.

    NOAH, SSF, FacT and RepAdapter share these tasks in this layout; see https://github.com/ZhangYuanhan-AI/NOAH. The
    lists do not name the classes, so each is called by its number.

    Args:
        data_root: Folder of the task, with ``images`` and ``{train800,val200,train800val200,test}.txt``.
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        split: Name of the list without its suffix.
        num_images: Number of images that the list must have; default that of the protocol, any number for 'test'.
        **options: Further arguments of mmpretrain's ``CustomDataset``.

    Raises:
        ValueError: the split is unknown, or the list has a wrong line or another number of images.
    """

    def __init__(self, data_root: str, num_classes: int, split: str = 'train800val200', num_images: int | None = None,
                 **options) -> None:
        check_split(split, (*VTAB_IMAGES, 'test'))
        self.num_images = num_images or VTAB_IMAGES.get(split)
        self.num_classes = num_classes
        super().__init__(data_root=data_root, ann_file=f'{split}.txt', test_mode=split == 'test',
                         **{'classes': [str(i) for i in range(num_classes)], **options})

    def load_data_list(self) -> list[dict]:
        """Reads the list, after checking each of its lines."""
        lines = list_from_file(self.ann_file)
        for i, line in enumerate(lines, 1):
            file, _, label = line.strip().rpartition(' ')
            if not file or not label.isdecimal() or int(label) >= self.num_classes:
                raise ValueError(f'{self.ann_file}, line {i}: an image and a label from 0 to {self.num_classes - 1} '
                                 f'are needed, not "{line}"')
        if self.num_images and len(lines) != self.num_images:
            raise ValueError(f'{self.ann_file} has {len(lines)} lines instead of {self.num_images}: get a whole copy, '
                             'or set num_images if this is meant')
        return super().load_data_list()


@DATASETS.register_module()
def held_out(dataset: dict, part: str = 'train', fraction: float = 0.1, seed: int = 0) -> BaseDataset:
    """Builds a dataset and keeps a part of it: a fraction of each class for validation, or the rest for training.

    This serves to choose settings where a dataset has no validation split. Hashes of their positions in the list decide
    which images are held out, so they are the same on every machine, and a smaller fraction is part of a larger one.

    Args:
        dataset: Config of a dataset with ``get_gt_labels``.
        part: 'train' or 'val'. The two have no image in common, and together all images.
        fraction: Share of each class in 'val', between 0 and 1; at least one image if the class has two or more.
        seed: Another seed holds out other images.

    Returns:
        BaseDataset: The dataset with the images of ``part`` only.

    Raises:
        ValueError: the part is unknown or the fraction out of its range.
        TypeError: the dataset has no labels, or is wrapped.
    """
    check_split(part, ('train', 'val'), 'part')
    if not 0 < fraction < 1:
        raise ValueError(f'fraction must be between 0 and 1, got {fraction}')
    whole = DATASETS.build(dataset)
    if not isinstance(whole, BaseDataset):
        raise TypeError(f'held_out takes a dataset of mmpretrain that is not wrapped, got a {type(whole).__name__}')
    of_class: dict[int, list[int]] = {}
    for i, label in enumerate(whole.get_gt_labels().tolist()):
        of_class.setdefault(label, []).append(i)
    val = {i for indices in of_class.values() for i in choose_held_out(indices, fraction, seed)}
    # In place, because get_subset keeps its copy by the dataset's address and may hand it to a later dataset.
    whole.get_subset_([i for i in range(len(whole)) if (i in val) == (part == 'val')])
    return whole


def choose_held_out(indices: list[int], fraction: float, seed: int) -> list[int]:
    """Chooses which of the ``indices`` of a class are held out."""
    if len(indices) < 2:
        return []
    count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
    return sorted(indices, key=lambda i: hashlib.sha256(f'{seed} {i}'.encode()).digest())[:count]


def check_split(split: str, known: tuple[str, ...], what: str = 'split') -> None:
    """Raises a ValueError if there is no such split."""
    if split not in known:
        raise ValueError(f'{what} must be one of {", ".join(known)}, got "{split}"')


class ListEntry(NamedTuple):
    """The rest of a line, after its identifier.

    Attributes:
        where: File and line, for messages.
        value: The text after the identifier.
    """
    where: str
    value: str

    @property
    def number(self) -> int:
        """Value as a whole number. Raises a ValueError if it is not one."""
        if not self.value.isdecimal():
            raise ValueError(f'{self.where}: a number is needed, not "{self.value}"')
        return int(self.value)


def read_table(path: str) -> dict[str, ListEntry]:
    """Reads lines of an identifier and a value, which may contain spaces; returns them by identifier.

    Raises:
        ValueError: a line has no value, or an identifier occurs twice.
    """
    rows: dict[str, ListEntry] = {}
    for i, line in enumerate(list_from_file(path, encoding='utf-8'), 1):
        key, _, value = line.strip().partition(' ')
        where = f'{path}, line {i}'
        if not value:
            raise ValueError(f'{where}: an identifier and a value are needed, not "{line}"')
        if key in rows:
            raise ValueError(f'{where}: {key} is there a second time, after {rows[key].where}')
        rows[key] = ListEntry(where, value.strip())
    return rows


def find_entry(rows: dict[str, ListEntry], key: str, name: str, asked: ListEntry) -> ListEntry:
    """Returns the row of ``key`` in the file ``name``, to which the row ``asked`` refers."""
    if key not in rows:
        raise ValueError(f'{asked.where}: {key} is not in {name}')
    return rows[key]


def read_lists(path: str, *names: str) -> list[list]:
    """Reads variables from a MATLAB file, which must have the same length.

    Raises:
        ValueError: the file is damaged, or lacks a variable, or their lengths differ.
    """
    try:
        variables = mat4py.loadmat(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # mat4py raises many types for damaged files
        raise ValueError(f'{path} cannot be read, it is damaged or no MATLAB file: {error}') from error
    absent = [name for name in names if name not in variables]
    if absent:
        raise ValueError(f'{path} has no {", ".join(absent)}, only {", ".join(variables) or "nothing"}')
    lists = [list(single_values(variables[name])) for name in names]
    if len({len(values) for values in lists}) > 1:
        counts = ', '.join(f'{name} {len(values)}' for name, values in zip(names, lists))
        raise ValueError(f'{path}: these should have one length: {counts}')
    return lists


def single_values(value: object) -> Iterator[object]:
    """Yields the single values in what mat4py returns for a column, a row or an element."""
    return chain.from_iterable(map(single_values, value)) if isinstance(value, list) else iter([value])

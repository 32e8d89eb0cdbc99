"""Questions about a built dataset and its samples, answered through wrappers and without loading a sample."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.structures import BaseDataElement

from .judging import USUAL, Reader
from .load_bands import LoadBands
from .pairs import LabelRule


def source_datasets(dataset: object) -> Iterator[object]:
    """Yields the datasets inside wrappers such as ConcatDataset and RepeatDataset; an unwrapped one yields itself."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if any(not hasattr(d, '__getitem__') or isinstance(d, str) for d in inner):
        yield dataset
        return
    for each in inner:
        yield from source_datasets(each)


def transforms_of(dataset: object) -> Iterator[object]:
    """Yields every transform of the pipelines of ``dataset``, those inside other transforms too."""
    for source in source_datasets(dataset):
        yield from nested_transforms(getattr(source, 'pipeline', None))


def nested_transforms(transform: object) -> Iterator[object]:
    """Yields a transform and those inside it, at any depth."""
    if isinstance(transform, (list, tuple)):
        for each in transform:
            yield from nested_transforms(each)
    elif callable(transform):
        yield transform
        for name in ('transforms', 'subroutines'):
            yield from nested_transforms(getattr(transform, name, None))


def has_transform(dataset: object, name: str) -> bool:
    """Says whether the pipelines have a transform of the class ``name``, or of one that inherits from it."""
    return any(name in (c.__name__ for c in type(t).__mro__) for t in transforms_of(dataset))


def rotates(dataset: object) -> bool:
    """Says whether images are rotated as they are loaded, according to their EXIF orientation."""
    kinds = [getattr(t, 'color_type', 'color') for t in transforms_of(dataset)]
    return not any(kind == 'unchanged' or kind.endswith('ignore_orientation') for kind in kinds)


def loader_of(dataset: object) -> LoadImageFromFile | None:
    """Returns the transform with which the pipelines read images, or None."""
    return next((t for t in transforms_of(dataset) if isinstance(t, LoadImageFromFile)), None)


def reader_of(dataset: object) -> Reader:
    """Returns what is known of how the pipelines of a dataset read images."""
    return known_reader(loader_of(dataset))


def known_reader(loader: LoadImageFromFile | None) -> Reader:
    """Returns what is known of how a transform reads images."""
    if isinstance(loader, LoadBands):
        return Reader(loader.how)
    usual = type(loader) is LoadImageFromFile and loader.imdecode_backend in ('cv2', None)
    return USUAL if usual and loader.color_type.startswith(('color', 'grayscale')) else Reader(judged=False)


def label_rule(dataset: object) -> LabelRule:
    """Returns what the pixels of label maps mean by the settings of ``dataset``."""
    source = next(source_datasets(dataset))
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    return LabelRule(
        num_classes=len(classes) if classes else None,
        ignore_index=getattr(source, 'ignore_index', 255),
        reduce_zero_label=getattr(source, 'reduce_zero_label', False),
        label_map=getattr(source, 'label_map', None))


def sample_files(info: dict, with_label: bool = True) -> tuple[str | None, str | None]:
    """Returns the image and the label map in the ``get_data_info`` of a sample; None if it has none."""
    return info.get('img_path'), info.get('seg_map_path') if with_label else None


def class_numbers(source: object, index: int) -> list[int]:
    """Returns the class numbers of an image of a classification dataset; empty for other datasets."""
    if not hasattr(source, 'get_gt_labels'):
        return []
    return np.ravel(source.get_data_info(index).get('gt_label', [])).astype(int).tolist()


def highest_class(source: object) -> int:
    """Returns the highest class number of the images of a classification dataset; -1 without labels."""
    return max((number for i in range(len(source)) for number in class_numbers(source, i)), default=-1)


def batch_is_ignored(data_samples: Sequence[BaseDataElement], ignore_index: int = 255) -> bool:
    """Says whether all pixels of a segmentation batch are ignored, so that it teaches nothing.

    Args:
        data_samples: The ``data_samples`` of a batch, with ``gt_sem_seg.data`` (1, H, W).
        ignore_index: Class number of ignored pixels.

    Returns:
        bool: False also for a batch that has no label maps, as in classification.
    """
    labels = [sample.gt_sem_seg.data for sample in data_samples if 'gt_sem_seg' in sample]
    # A few pixels of each are looked at first: one labelled pixel is enough, and nearly always among them.
    looks = ((label[..., ::step, ::step] for label in labels) for step in (16, 1))
    # As int64: in uint8, -100 would be 156.
    return bool(labels) and not any(torch.any(label.long() != ignore_index) for look in looks for label in look)

"""A dataset wrapper that names the files of each sample that fails, and keeps wrong labels out of batches."""

import numpy as np
import torch
from mmengine.registry import DATASETS

from ..wording import listed
from .introspect import has_transform, label_rule, reader_of, rotates, sample_files
from .pairs import VALUES, LabelRule, check_headers, error_line, inspect_pair
from .reading import PixelError


class SampleError(RuntimeError):
    """A sample cannot be used. The message names its files and says what is wrong with them."""


@DATASETS.register_module()
class GuardedDataset:
    """Wrapper that checks each sample of ``dataset`` and otherwise behaves like it.

    Each process reads the headers of a sample's files once. Label values are checked every time, after the pipeline.
    Samples whose files or labels are of an unknown kind pass unchecked.

    Args:
        dataset: A map-style dataset, or its config: one of mmsegmentation's or mmpretrain's, wrapped or not, or any
            other.

    Raises:
        SampleError: from ``dataset[index]``, if the sample is wrong or cannot be loaded for any reason.
    """

    def __init__(self, dataset: object) -> None:
        self.dataset = dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self._rule = label_rule(dataset)
        self._with_label = has_transform(dataset, 'LoadAnnotations')
        self._with_files = has_transform(dataset, 'LoadImageFromFile')
        self._rotates, self._reader = rotates(dataset), reader_of(dataset)
        self._checked: set[int] = set()

    def __getattr__(self, name: str):
        # Special methods are not handed on: torch would find a __getitems__ and bypass this class.
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(f'index {index} of a dataset of {len(self)}')  # ends a loop over the dataset
        index %= len(self)  # wrappers differ in what a negative index means
        files = self._files(index)
        if files[0] and index not in self._checked:
            self._refuse(check_headers(*files, self._rotates, self._reader))
            self._checked.add(index)
        try:
            data = self.dataset[index]
        except Exception as error:
            raise SampleError(self._explain(index, files, error)) from error
        self._check_labels(data, index, files)
        return data

    def _files(self, index: int) -> tuple[str | None, str | None]:
        """Returns the image and the label map of a sample, None where the pipeline reads no local file."""
        if not self._with_files or not hasattr(self.dataset, 'get_data_info'):
            return None, None
        try:
            files = sample_files(self.dataset.get_data_info(index), self._with_label)
        except Exception as error:
            raise SampleError(f'sample {index} of {self._name()}: {error_line(error)}') from error
        return (None, None) if any('://' in str(file) for file in files) else files

    def _check_labels(self, data: object, index: int, files: tuple[str | None, str | None]) -> None:
        """Refuses class numbers that are neither a class nor ignored."""
        sample = data.get('data_samples') if isinstance(data, dict) else None
        sample = sample[0] if isinstance(sample, list) and sample else sample  # any one of the test-time views
        if self._rule.num_classes is None or not hasattr(sample, 'metainfo'):
            return
        where = sample.metainfo.get('seg_map_path') or sample.metainfo.get('img_path') or files[1] or files[0]
        where = where or f'sample {index} of {self._name()}'
        if 'gt_sem_seg' in sample:
            self._refuse(wrong_map(sample.gt_sem_seg.data, self._rule, where))
        elif 'gt_label' in sample:
            self._refuse(wrong_numbers(sample.gt_label, self._rule.num_classes, where))

    def _explain(self, index: int, files: tuple[str | None, str | None], error: Exception) -> str:
        """Names the files of a sample that could not be loaded, and looks for what is wrong with them."""
        if isinstance(error, PixelError):
            return f'sample {index} cannot be loaded: {error}'
        names = ' with '.join(file for file in files if file) or f'in {self._name()}'
        problems = inspect_pair(*files, self._rule, self._rotates, self._reader).problems if files[0] else []
        said = '' if problems and files[0] in str(error) else f' {error_line(error)}'  # that it failed to load it
        return '\n  '.join([f'sample {index}, {names}, cannot be loaded:{said}', *problems])

    def _name(self) -> str:
        return type(self.dataset).__name__

    @staticmethod
    def _refuse(problems: list[str]) -> None:
        if problems:
            raise SampleError('\n'.join(problems))


def wrong_map(label: torch.Tensor, rule: LabelRule, where: str) -> list[str]:
    """Says which class numbers of a loaded label map (1, H, W) are wrong."""
    if label.ndim != 3 or len(label) != 1:
        return [f'{where}: the label map was loaded with the shape {tuple(label.shape)} instead of (1, height, width)']
    values = label.numpy()  # several times faster than torch here
    wrong = (values >= rule.num_classes) & (values != rule.ignore_index)
    if values.min(initial=0) >= 0 and not wrong.any():
        return []
    wrong |= values < 0
    numbers = listed(np.unique(values[wrong]), VALUES)
    reduced = ', one less than in the file because of reduce_zero_label' if rule.reduce_zero_label else ''
    return [f'{where}: the label map has the class numbers {numbers}{reduced}; the dataset has {rule.num_classes} '
            f'classes, 0 to {rule.num_classes - 1}, and {rule.ignore_index} is ignored']


def wrong_numbers(labels: torch.Tensor, num_classes: int, where: str) -> list[str]:
    """Says which class numbers (N,) of an image are wrong."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    return [f'{where}: its class is {listed(wrong.tolist(), VALUES)}; the dataset has {num_classes} classes, 0 to '
            f'{num_classes - 1}'] if len(wrong) else []

"""Files that a test leaves of every image: label maps, and pictures."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmengine.dist.utils
import numpy as np
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement

from ...datasets.introspect import label_rule, loader_of
from ...datasets.predicted import output_names, own_files, read_picture, write_label_map
from .validation_pictures import show


class WritingHook(Hook):
    """Hook that writes a file for each image of a test, whose name no other image has.

    With several processes each writes its own share of the images.

    Args:
        folder: Where to write. Subfolders of the dataset's image folder are kept.
        dataset: The dataset that is tested.

    Raises:
        ValueError: a file to write is an image or a label map of the dataset.
    """

    def __init__(self, folder: str | Path, dataset: object) -> None:
        self.folder = Path(folder)
        self.names = output_names(dataset)
        written = {os.path.abspath(self.folder / f'{name}.png') for name in self.names.values()}
        if own := sorted(written & own_files(dataset)):
            raise ValueError(f'what is written into {folder} would overwrite files of the dataset itself, such as '
                             f'{own[0]}: choose another folder')

    def file_of(self, sample: BaseDataElement) -> Path:
        """Returns the file to write for a sample.

        Raises:
            ValueError: nothing tells which image of the dataset it is.
        """
        name = self.names.get(sample.get('img_path'), sample.get('sample_idx'))
        if name is None:
            raise ValueError('what is predicted has neither img_path nor sample_idx, so that no file can be named '
                             'after it: let the packing transform of the pipeline keep them (meta_keys)')
        return self.folder / f'{name}.png'


class LabelMapsHook(WritingHook):
    """Writes the predicted label map of each image of a test, as PNG.

    Args:
        folder: Where to write.
        dataset: The dataset that is tested.
        dataset_numbers: Whether classes have the values of the dataset's own label files, for which
            ``reduce_zero_label`` and ``label_map`` are undone. By default they are numbered from 0, as in the model.

    Raises:
        ValueError: a file to write is one of the dataset; or a class has no value of its own in the label files.
    """

    def __init__(self, folder: str | Path, dataset: object, dataset_numbers: bool = False) -> None:
        super().__init__(folder, dataset)
        rule = label_rule(dataset)
        self.classes = rule.num_classes
        self.values = rule.value_of_class(rule.num_classes or 0) if dataset_numbers else None

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: list[BaseDataElement] | None = None) -> None:
        for sample in outputs or []:
            labels = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)  # (H, W)
            write_label_map(labels, self.file_of(sample), self.classes, self.values)


class PicturesHook(WritingHook):
    """Draws each image of a test with its labels and predictions, as mmsegmentation or mmpretrain does, into a PNG.

    An image that is no file is drawn as the model gets it.

    Args:
        folder: Where to write.
        dataset: The dataset that is tested.

    Raises:
        ValueError: a file to write is one of the dataset.
    """

    def before_test_epoch(self, runner) -> None:
        with as_first_process():
            runner.visualizer.dataset_meta = runner.test_evaluator.dataset_meta

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: list[BaseDataElement] | None = None) -> None:
        for i, sample in enumerate(outputs or []):
            file = self.file_of(sample)
            if path := sample.get('img_path'):
                image = read_picture(path, loader_of(runner.test_dataloader.dataset))
            else:
                image = data_batch['inputs'][i].permute(1, 2, 0).cpu().numpy().astype(np.uint8)[..., ::-1].copy()
            file.parent.mkdir(parents=True, exist_ok=True)
            with as_first_process():
                show(runner.visualizer, image, sample, file.name, out_file=str(file))


@contextmanager
def as_first_process() -> Iterator[None]:
    """Lets this process draw; OpenMMLab's visualizers do nothing in any but the first, whose share is a part."""
    ask = mmengine.dist.utils.is_main_process
    mmengine.dist.utils.is_main_process = lambda group=None: True
    try:
        yield
    finally:
        mmengine.dist.utils.is_main_process = ask

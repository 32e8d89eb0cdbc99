"""A dataset of the images and masks in a list."""

import csv
import os

from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS

COLUMNS = ['image', 'mask']


@DATASETS.register_module()
class ListedPairs(BaseSegDataset):
    """The images and masks that a CSV file lists, wherever they lie.

    The file has the header ``image,mask``. Its paths are absolute, or relative to ``data_root``; a mask may be left
    empty in a dataset for prediction, whose pipeline loads no masks. The class names and the palette come from
    ``metainfo``.

    Args:
        ann_file: The CSV file.
        **options: Further arguments of mmsegmentation's ``BaseSegDataset``; ``data_prefix``, ``img_suffix`` and
            ``seg_map_suffix`` have no use here.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: its header is another, or a line has no image, or no mask though the pipeline loads masks.
    """

    def __init__(self, ann_file: str, **options) -> None:
        super().__init__(ann_file=ann_file, data_prefix={}, **options)

    def load_data_list(self) -> list[dict]:
        """Reads the list."""
        text = fileio.get_text(self.ann_file, 'utf-8-sig', self.backend_args)  # without the mark that Excel puts first
        lines = csv.reader(text.splitlines())
        if (header := [name.strip() for name in next(lines, [])]) != COLUMNS:
            raise ValueError(f'{self.ann_file}: the first line must be {",".join(COLUMNS)}, not {",".join(header)}')
        needs_masks, samples = loads_masks(self.pipeline), []
        for cells in filter(None, lines):
            image, mask, *more = *cells, ''
            where = f'{self.ann_file}, line {lines.line_num}'
            if not image or any(more):
                raise ValueError(f'{where}: an image and a mask are needed, not "{",".join(cells)}"; a name with a '
                                 'comma is written in quotes')
            if needs_masks and not mask:
                raise ValueError(f'{where}: {image} has no mask. Add it, or take the line out; to predict images '
                                 'without masks, take LoadAnnotations out of the pipeline of the dataset')
            sample = dict(img_path=self._path(image), label_map=self.label_map,
                          reduce_zero_label=self.reduce_zero_label, seg_fields=[])
            samples.append({**sample, 'seg_map_path': self._path(mask)} if mask else sample)
        return samples

    def _path(self, name: str) -> str:
        return os.path.join(self.data_root or '', name)


def loads_masks(transform: object) -> bool:
    """Says whether a transform, or one inside it, loads masks."""
    inside = [each for name in ('transforms', 'subroutines') for each in getattr(transform, name, None) or ()]
    return isinstance(transform, LoadAnnotations) or any(map(loads_masks, inside))

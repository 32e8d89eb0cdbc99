"""A faster version of mmsegmentation's random crop."""

import cv2
import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import RandomCrop
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class HistogramRandomCrop(RandomCrop):
    """RandomCrop that counts the classes of a crop with a histogram; the same random numbers give the same crops.

    mmsegmentation sorts all pixels of a crop to count them, which takes longer than decoding the image.
    """

    @cache_randomness
    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """Draws the top, bottom, left and right of a crop, up to eleven times until no class takes too much of it."""
        box = self.random_box(*results['img'].shape[:2])
        for _ in range(10 if self.cat_max_ratio < 1 else 0):
            if self.is_mixed(self.crop(results['gt_seg_map'], box)):
                break
            box = self.random_box(*results['img'].shape[:2])
        return box

    def random_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draws a crop of an image; it reaches beyond a smaller one."""
        top, left = (np.random.randint(0, max(side - length, 0) + 1)
                     for side, length in zip((height, width), self.crop_size))
        return top, top + self.crop_size[0], left, left + self.crop_size[1]

    def is_mixed(self, labels: np.ndarray) -> bool:
        """Says whether labels (H, W) have two classes or more, and each less than ``cat_max_ratio`` of them."""
        if labels.dtype == np.uint8:
            counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(int)  # exact below 2**24 pixels
            classes = counts.nonzero()[0]
            counts = counts[classes]
        else:
            classes, counts = np.unique(labels, return_counts=True)
        counts = counts[classes != self.ignore_index]
        return len(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio

"""Pictures of validation images in the visualizer, while a run trains."""

import math
from pathlib import Path

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement, PixelData
from mmengine.visualization import Visualizer

from ...datasets.introspect import loader_of
from ...datasets.predicted import read_picture

SMALLEST_SIDE = 224  # of a picture with words in it, in pixels


@HOOKS.register_module()
class ValidationPicturesHook(Hook):
    """Shows the same validation images, evenly spaced, with labels and predictions, at each validation.

    Images must be files. Segmentation is drawn by mmsegmentation's visualizer, classification by mmpretrain's.

    Args:
        images: The number of images. With several processes they are images of the first.
    """

    def __init__(self, images: int = 4) -> None:
        self.images = images

    def before_val_epoch(self, runner) -> None:
        number = len(runner.val_dataloader.sampler)  # of this process
        pictures = min(self.images, number)
        self.chosen = [k * number // pictures for k in range(pictures)]
        self.seen = 0

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                       outputs: list[BaseDataElement] | None = None) -> None:
        for sample in outputs or []:
            if self.seen in self.chosen and is_main_process():
                loader = loader_of(getattr(runner.val_dataloader, 'dataset', None))
                draw(runner.visualizer, sample, self.chosen.index(self.seen) + 1, runner.iter, loader)
            self.seen += 1


def draw(visualizer: Visualizer, sample: BaseDataElement, number: int, iteration: int,
         loader: LoadImageFromFile | None = None) -> None:
    """Gives a visualizer the picture of a predicted sample, if it can draw such a one.

    Args:
        visualizer: The visualizer of the run.
        sample: What was predicted, with the name of its image file.
        number: Its place among the pictures, counted from 1.
        iteration: The number of iterations that are done.
        loader: The transform that reads the images.
    """
    path = sample.get('img_path')
    if not path or not Path(path).is_file():
        return
    show(visualizer, read_picture(path, loader), sample, f'val_{number}_{Path(path).name}', step=iteration)


def show(visualizer: Visualizer, image: np.ndarray, sample: BaseDataElement, name: str, **options) -> None:
    """Gives a visualizer an image with its labels and predictions, if it can draw such ones.

    Args:
        visualizer: That of mmsegmentation or of mmpretrain.
        image: Pixels (H, W, 3), red first.
        sample: What was predicted for it.
        name: Name of the picture; MLflow takes the format from its suffix.
        **options: ``step``, or the ``out_file`` to write.
    """
    short = min(image.shape[:2])
    if 'pred_sem_seg' in sample:
        visualizer.add_datasample(name, *enlarged(image, sample, math.ceil(SMALLEST_SIDE / short)), **options)
    elif 'pred_label' in sample and hasattr(visualizer, 'visualize_cls'):
        visualizer.visualize_cls(image, sample, resize=max(SMALLEST_SIDE, short), name=name, **options)


def enlarged(image: np.ndarray, sample: BaseDataElement, times: int) -> tuple[np.ndarray, BaseDataElement]:
    """Returns an image (H, W, 3) and copies of its label maps (1, H, W), with each pixel repeated ``times`` times."""
    maps = sample.new(**{
        name: PixelData(data=sample.get(name).data.repeat_interleave(times, 1).repeat_interleave(times, 2))
        for name in ('gt_sem_seg', 'pred_sem_seg') if name in sample})
    return image.repeat(times, 0).repeat(times, 1), maps

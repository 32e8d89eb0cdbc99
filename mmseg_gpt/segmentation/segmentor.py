"""mmsegmentation's EncoderDecoder, evaluated as a stream: windows -> bands of rows at the original size -> labels."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..models.complete import complete
from ..settings import unwrapped_datasets
from .bands import Windows, merge, placed, resize, restore

# Bytes of a band of logits. On a CPU it should stay in the cache from its first use to its last; on a GPU it should be
# large enough for the time of its few kernels to hide their launches.
CPU_BAND, GPU_BAND = 2 * 2**20, 256 * 2**20


class LabelledSample(SegDataSample):
    """SegDataSample with labels only, which says how to get logits."""

    @property
    def seg_logits(self) -> PixelData:
        if '_seg_logits' not in self.__dict__:
            raise AttributeError('there are no seg_logits: to save memory, this model keeps the labels only. For '
                                 'logits set model.test_cfg.keep_logits=True, as in init_model(..., cfg_options={'
                                 "'model.test_cfg.keep_logits': True}); for probabilities in less memory set "
                                 'keep_probabilities=True in its place, and read seg_probabilities')
        return self._seg_logits

    @seg_logits.setter
    def seg_logits(self, value: PixelData) -> None:
        self.set_field(value, '_seg_logits', dtype=PixelData)

    @seg_logits.deleter
    def seg_logits(self) -> None:
        del self._seg_logits


@MODELS.register_module()
class LeanEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with the same parameters, options and predictions, and less time and memory in evaluation.

    The images of a batch may have different sizes. ``predict`` goes image by image, and no tensor with all classes of
    a whole image is made: overlapping windows are added into one strip, as high as a window; finished rows are resized
    to the original size and become labels a few at a time. Memory is bounded by the window's height times the image's
    width.

    ``test_cfg`` has two more options:

    * ``window_batch``: How many windows of an image go through the model together; 8 on a GPU, which one window does
      not fill, and 1 on a CPU, where more take as long and need more memory.
    * ``keep_logits``: True adds ``seg_logits`` (C, H, W) to the results. Then all is done as in mmsegmentation, in its
      time and memory: ``init_model(config, checkpoint, cfg_options={'model.test_cfg.keep_logits': True})``.
    * ``keep_probabilities``: True adds ``seg_probabilities`` (C, H, W), float16 on the CPU, to the results: the softmax
      of the logits, or the sigmoid of a single channel. They are made a band at a time. A sample may ask for them
      itself with ``probabilities`` in its metainfo: True, or the .npy file that shall hold them in the place of memory.

    Without these the results hold ``pred_sem_seg`` only, (1, H, W) of int64 (for a single output channel too, where
    mmsegmentation has floats).

    Args:
        num_classes: Of every head that does not say it.
        crop_size: Height and width of the crops in training, from which ``data_preprocessor.size``, ``img_size`` of the
            backbone and the sliding windows follow where they are not said.
        settings: As EncoderDecoder's; what follows from other settings may be left out, see
            :func:`mmseg_gpt.models.complete.complete`.

    Raises:
        ValueError: a setting is missing and follows from no other, or two contradict each other.
    """

    def __init__(self, *, num_classes: int | None = None, crop_size: tuple[int, int] | None = None,
                 **settings: object) -> None:
        super().__init__(**complete(ConfigDict(settings, num_classes=num_classes, crop_size=crop_size)))

    def val_step(self, data: dict) -> list[SegDataSample]:
        """Labels a batch whose images may have different sizes: then they go through the model one by one."""
        return [sample for same in in_equal_sizes(data) for sample in super(LeanEncoderDecoder, self).val_step(same)]

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Labels a batch as :meth:`val_step` does."""
        return [sample for same in in_equal_sizes(data) for sample in super(LeanEncoderDecoder, self).test_step(same)]

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Labels each pixel of images (B, 3, H, W) at the ``ori_shape`` in the samples.

        Args:
            inputs: (B, 3, H, W), normalised and padded.
            data_samples: One for each image; without them, images are labelled at the size they have.

        Raises:
            ValueError: an option in ``test_cfg`` or the flip of an image is not one that is known.
        """
        if self.test_cfg.get('keep_logits', False):
            return super().predict(inputs, data_samples)
        if data_samples is None:
            data_samples = [SegDataSample(metainfo=dict(ori_shape=inputs.shape[2:], img_shape=inputs.shape[2:]))
                            for _ in inputs]
        for image, sample in zip(inputs, data_samples):
            labels = image.new_empty((1, *sample.ori_shape[:2]), dtype=torch.long)
            kept = self.room_for_probabilities(sample)
            for rows, logits in placed(self.original_rows(image, sample.metainfo)):
                labels[0, rows] = self.labels(logits.sigmoid() if self.out_channels == 1 else logits)
                if kept is not None:
                    kept[:, rows] = probabilities(logits).permute(2, 0, 1).half().cpu()
            if type(sample) is SegDataSample:
                object.__setattr__(sample, '__class__', LabelledSample)  # its own would make it a field
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels)))
            if kept is not None:
                sample.set_data(dict(seg_probabilities=PixelData(data=kept)))
        return data_samples

    def room_for_probabilities(self, sample: SegDataSample) -> Tensor | None:
        """Returns a tensor (C, H, W) of float16, in memory or in a file, if probabilities are asked for."""
        asked = sample.metainfo.get('probabilities', self.test_cfg.get('keep_probabilities', False))
        shape = (self.out_channels, *sample.ori_shape[:2])
        if not asked:
            return None
        return torch.empty(shape, dtype=torch.float16) if asked is True else torch.from_numpy(
            np.lib.format.open_memmap(asked, 'w+', np.float16, shape))

    @property
    def cfg(self) -> Config:
        """The config that mmsegmentation's ``init_model`` notes, whose ``test_pipeline`` its ``inference_model`` reads.

        One that has none gets that of its test data.
        """
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Config) -> None:
        self._cfg = with_test_pipeline(cfg)

    def original_rows(self, image: Tensor, meta: dict) -> Iterator[Tensor]:
        """Yields the logits of an image (3, H, W) at its ``ori_shape``, in bands (n, W, C) of rows from the top.

        A band may be a view of memory that is written again: use one before asking for the next.
        """
        size, original = tuple(image.shape[1:]), tuple(meta['ori_shape'][:2])
        bytes_of_row = max(size[1], original[1]) * self.out_channels * image.element_size()
        band = max(1, (CPU_BAND if image.device.type == 'cpu' else GPU_BAND) // bytes_of_row)
        windows = self.windows(size)
        meta = dict(meta, img_shape=torch.Size(windows.size))  # a head takes a torch.Size for the size of the window
        dtype = torch.promote_types(image.dtype, torch.float32)
        merged = merge(self.window_logits(image, meta, windows), windows, dtype, band)
        left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
        upright = restore(merged, size, (left, right, top, bottom),
                          meta.get('flip_direction') if meta.get('flip') else None)
        cropped = (size[0] - top - bottom, size[1] - left - right)
        return resize(upright, cropped, original, self.align_corners, band)

    def windows(self, size: tuple[int, int]) -> Windows:
        """The windows of an image of ``size``."""
        mode = self.test_cfg.get('mode', 'whole')
        if mode == 'whole':
            return Windows.whole(size)
        if mode == 'slide':
            return Windows.sliding(size, self.test_cfg['crop_size'], self.test_cfg['stride'])
        raise ValueError(f'test_cfg.mode is "{mode}"; it must be "slide" or "whole"')

    @torch.no_grad()
    def window_logits(self, image: Tensor, meta: dict, windows: Windows) -> Iterator[Tensor]:
        """Yields the logits (h, w, C) of each window of an image (3, H, W), computed several at a time."""
        (height, width), places = windows.size, windows.places
        batch = self.test_cfg.get('window_batch', 1 if image.device.type == 'cpu' else 8)
        if batch < 1:
            raise ValueError(f'test_cfg.window_batch is {batch}; it must be at least 1')
        for i in range(0, len(places), batch):
            crops = torch.stack([image[:, y:y + height, x:x + width] for y, x in places[i:i + batch]])
            logits = self.encode_decode(crops, [meta] * len(crops))
            if tuple(logits.shape[2:]) != windows.size:
                raise ValueError(f'{type(self.decode_head).__name__} gave logits of {tuple(logits.shape[2:])} for '
                                 f'windows of {windows.size}; predict must resize them to the img_shape it is given')
            yield from logits.permute(0, 2, 3, 1)
            del logits  # before the next ones are computed

    def labels(self, scores: Tensor) -> Tensor:
        """Scores (n, W, C) -> labels (n, W): the class with the highest score; or, of a single channel, whether its
        probability is above the threshold.
        """
        if self.out_channels == 1:
            return scores.squeeze(2) > self.decode_head.threshold
        return scores.max(2).indices  # faster than argmax on a CPU, and also the first of equal ones


def probabilities(logits: Tensor) -> Tensor:
    """Returns the probabilities (n, W, C) of logits (n, W, C): the softmax, or the sigmoid of a single channel."""
    return logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(2)


def with_test_pipeline(cfg: Config) -> Config:
    """Returns a config that has a ``test_pipeline``, if need be a copy with that of its test or validation data."""
    if not isinstance(cfg, Config) or cfg.get('test_pipeline'):
        return cfg
    for loader in ('test_dataloader', 'val_dataloader'):
        dataset = (cfg.get(loader) or {}).get('dataset')
        if pipeline := next(unwrapped_datasets(dataset)).get('pipeline') if dataset else None:
            cfg = cfg.copy()
            cfg.test_pipeline = copy.deepcopy(pipeline)
            break
    return cfg


def in_equal_sizes(data: dict) -> list[dict]:
    """Divides a batch into its images if they have different sizes, as a preprocessor takes equal ones only.

    Args:
        data: The ``inputs``, (B, 3, H, W) or a list of (3, H, W), and whatever else has an entry for each image.
    """
    inputs = data['inputs']
    if len({image.shape for image in inputs}) == 1:
        return [data]
    return [{name: values[i:i + 1] for name, values in data.items()} for i in range(len(inputs))]

"""mmsegmentation's EncoderDecoder, evaluated as a stream: windows -> bands of rows at the original size -> labels."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from ..models.complete import complete
from ..models.labels import confidence_of, labels_of, scores_of, threshold_of
from ..settings import type_name, unwrapped_datasets
from .bands import Windows, merge, placed, resize, restore, size_on
from .preprocessor import LeanSegDataPreProcessor

# Bytes of a band of logits. On a CPU it should stay in the cache from its first use to its last; on a GPU it should be
# large enough for the time of its few kernels to hide their launches.
CPU_BAND, GPU_BAND = 2 * 2**20, 256 * 2**20
# Pixels above which an image is normalised window by window, and bytes above which a row of windows is cut into panels.
LARGE_IMAGE, STRIP = 2**24, 2**30


def band_bytes(device: torch.device) -> int:
    """Returns the bytes of a band of logits on a device."""
    return size_on(device, dict(cpu=CPU_BAND, cuda=GPU_BAND))


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


class PredictionBuffer:
    """Memory for what is predicted for one image, filled a part at a time.

    Args:
        model: The segmentor.
        sample: The sample of the image, whose metainfo says what is asked for.
        device: Where the labels are.
    """

    def __init__(self, model: 'LeanEncoderDecoder', sample: SegDataSample, device: torch.device) -> None:
        meta, size = sample.metainfo, tuple(sample.ori_shape[:2])
        small = meta.get('small') and model.num_classes <= 256
        self.model, self.done = model, 0
        self.labels = torch.empty((1, *size), dtype=torch.uint8 if small else torch.long, device=device)
        self.confidence = torch.empty((1, *size), dtype=torch.uint8) if meta.get('confidence') else None
        asked = meta.get('probabilities', model.test_cfg.get('keep_probabilities', False))
        shape, self.probabilities = (model.out_channels, *size), None
        if asked is True:
            self.probabilities = torch.empty(shape, dtype=torch.float16)
        elif asked:
            self.probabilities = torch.from_numpy(np.lib.format.open_memmap(asked, 'w+', np.float16, shape))

    def fill(self, rows: slice, columns: slice, scores: Tensor, probable: Callable[[], Tensor]) -> None:
        """Fills in a part of the image.

        Args:
            rows: Its rows.
            columns: Its columns.
            scores: (n, w, C), whose highest is the class; of a single channel, its probability.
            probable: Computes the probabilities (n, w, C), which are not always needed.
        """
        self.labels[0, rows, columns] = self.model.labels(scores).to(self.labels)
        self.done += scores.shape[0] * scores.shape[1]
        if self.model.report_share:
            self.model.report_share(self.done / self.labels.numel())
        if self.probabilities is None and self.confidence is None:
            return
        found = probable()
        if self.probabilities is not None:
            self.probabilities[:, rows, columns] = found.permute(2, 0, 1).half().cpu()
        if self.confidence is not None:
            self.confidence[0, rows, columns] = confidence_of(found.amax(2), self.model.threshold)

    def put_into(self, sample: SegDataSample) -> None:
        """Puts all of it into the sample."""
        if type(sample) is SegDataSample:
            object.__setattr__(sample, '__class__', LabelledSample)  # its own would make it a field
        sample.set_data(dict(pred_sem_seg=PixelData(data=self.labels)))
        if self.probabilities is not None:
            sample.set_data(dict(seg_probabilities=PixelData(data=self.probabilities)))
        if self.confidence is not None:
            sample.set_data(dict(seg_confidence=PixelData(data=self.confidence)))


@MODELS.register_module()
class LeanEncoderDecoder(EncoderDecoder):
    """EncoderDecoder with the same parameters, options and predictions, and less time and memory in evaluation.

    The images of a batch may have different sizes. ``predict`` goes image by image, and no tensor with all classes of
    a whole image is made: overlapping windows are added into one strip, as high as a window; finished rows are resized
    to the original size and become labels a few at a time. Memory is bounded by the window's height times the image's
    width. An image above 16 million pixels stays as it was read, which is 1 byte a value, until its windows are cut
    out; if a row of its windows would take more than 1 GiB of logits, they are computed in panels of columns, and
    windows on a border of two panels twice.

    ``test_cfg`` has three more options:

    * ``window_batch``: How many windows of an image go through the model together; 8 on a GPU, which one window does
      not fill, and 1 on a CPU, where more take as long and need more memory.
    * ``keep_logits``: True adds ``seg_logits`` (C, H, W) to the results. Then all is done as in mmsegmentation, in its
      time and memory: ``init_model(config, checkpoint, cfg_options={'model.test_cfg.keep_logits': True})``.
    * ``keep_probabilities``: True adds ``seg_probabilities`` (C, H, W), float16 on the CPU, to the results: the softmax
      of the logits, or the sigmoid of a single channel. They are made a band at a time. A sample may ask for them
      itself with ``probabilities`` in its metainfo: True, or the .npy file that shall hold them in the place of memory.
      And with ``confidence`` for ``seg_confidence`` (1, H, W), uint8 on the CPU: the probability of the predicted class
      of each pixel, of which 255 is 1. With ``small`` its labels are uint8, if there are no more than 256 classes.

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

    report_share: Callable[[float], None] | None = None  # is told which share of an image's pixels is labelled

    def __init__(self, *, num_classes: int | None = None, crop_size: tuple[int, int] | None = None,
                 **settings: object) -> None:
        settings = complete(ConfigDict(settings, num_classes=num_classes, crop_size=crop_size))
        preprocessor = settings.get('data_preprocessor')
        if isinstance(preprocessor, dict) and type_name(preprocessor) == 'SegDataPreProcessor':
            settings['data_preprocessor'] = dict(preprocessor, type=LeanSegDataPreProcessor)
        super().__init__(**settings)

    def val_step(self, data: dict) -> list[SegDataSample]:
        """Labels a batch whose images may have different sizes: then they go through the model one by one."""
        return [sample for same in in_equal_sizes(data) for sample in self.label(same)]

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Labels a batch as :meth:`val_step` does."""
        return self.val_step(data)

    def label(self, data: dict) -> list[SegDataSample]:
        """Labels a batch of images of one size, as they come out of a pipeline."""
        if self.streams(data['inputs'][0].shape[-2:]):
            return self.predict(data['inputs'], data['data_samples'], raw=True)
        return super().test_step(data)

    def streams(self, size: tuple[int, int]) -> bool:
        """Says whether images of a size are normalised window by window."""
        return (size[0] * size[1] > LARGE_IMAGE and self.test_cfg.get('mode') == 'slide'
                and not self.test_cfg.get('keep_logits', False)
                and type(self.data_preprocessor) in (SegDataPreProcessor, LeanSegDataPreProcessor)
                and not self.data_preprocessor.test_cfg)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None,
                raw: bool = False) -> list[SegDataSample]:
        """Labels each pixel of images (B, 3, H, W) at the ``ori_shape`` in the samples.

        Args:
            inputs: (B, 3, H, W), normalised and padded.
            data_samples: One for each image; without them, images are labelled at the size they have.
            raw: Whether ``inputs`` are as they come out of the pipeline, and are normalised here.

        Raises:
            ValueError: an option in ``test_cfg`` or the flip of an image is not one that is known.
        """
        if self.test_cfg.get('keep_logits', False):
            return super().predict(inputs, data_samples)
        if data_samples is None:
            data_samples = [SegDataSample(metainfo=dict(ori_shape=inputs.shape[2:], img_shape=inputs.shape[2:]))
                            for _ in inputs]
        for image, sample in zip(inputs, data_samples):
            buffer = PredictionBuffer(self, sample, torch.device('cpu') if raw else image.device)
            for rows, columns, logits in self.patches(image, sample.metainfo, raw):
                buffer.fill(rows, columns, scores_of(logits), lambda logits=logits: probabilities(logits))
            buffer.put_into(sample)
        return data_samples

    def patches(self, image: Tensor, meta: dict, raw: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields logits (n, w, C) of an image (3, H, W) at its ``ori_shape``, with the rows and columns they are of.

        Args:
            image: The image.
            meta: Its metainfo.
            raw: Whether it is to be normalised.
        """
        size = tuple(image.shape[1:])
        windows = self.windows(size)
        strip = windows.size[0] * size[1] * self.out_channels * 4
        plain = size == tuple(meta['ori_shape'][:2]) and not meta.get('flip') and not padding_of(meta)
        if strip <= STRIP or not plain or len(windows.lefts) < 3:
            for rows, logits in placed(self.original_rows(image, meta, raw)):
                yield rows, slice(0, logits.shape[1]), logits
            return
        meta = dict(meta, img_shape=torch.Size(windows.size))
        device = self.data_preprocessor.device if raw else image.device
        for columns, offset, part in windows.panels(max(1, STRIP * size[1] // strip)):
            band = max(1, band_bytes(device) // (part.image[1] * self.out_channels * 4))
            view = image[..., offset:offset + part.image[1]]
            merged = merge(self.window_logits(view, meta, part, raw), part, torch.float32, band)
            for rows, logits in placed(merged):
                yield rows, columns, logits[:, columns.start - offset:columns.stop - offset]

    @property
    def cfg(self) -> Config:
        """The config that mmsegmentation's ``init_model`` notes, whose ``test_pipeline`` its ``inference_model`` reads.

        One that has none gets that of its test data.
        """
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Config) -> None:
        self._cfg = with_test_pipeline(cfg)

    def original_rows(self, image: Tensor, meta: dict, raw: bool = False) -> Iterator[Tensor]:
        """Yields the logits of an image (3, H, W) at its ``ori_shape``, in bands (n, W, C) of rows from the top.

        A band may be a view of memory that is written again: use one before asking for the next.
        """
        size, original = tuple(image.shape[1:]), tuple(meta['ori_shape'][:2])
        dtype = torch.float32 if raw else torch.promote_types(image.dtype, torch.float32)
        device = self.data_preprocessor.device if raw else image.device
        bytes_of_row = max(size[1], original[1]) * self.out_channels * (4 if raw else image.element_size())
        band = max(1, band_bytes(device) // bytes_of_row)
        windows = self.windows(size)
        meta = dict(meta, img_shape=torch.Size(windows.size))  # a head takes a torch.Size for the size of the window
        merged = merge(self.window_logits(image, meta, windows, raw), windows, dtype, band)
        left, right, top, bottom = padding_of(meta) or (0, 0, 0, 0)
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

    def crops(self, image: Tensor) -> Tensor:
        """Returns the windows (n, 3, h, w) of an image (3, H, W), in the order in which the backbone gets them."""
        windows = self.windows(image.shape[1:])
        return cut(image, windows, windows.places)

    @torch.no_grad()
    def window_logits(self, image: Tensor, meta: dict, windows: Windows, raw: bool = False) -> Iterator[Tensor]:
        """Yields the logits (h, w, C) of each window of an image (3, H, W), computed several at a time."""
        places = windows.places
        device = self.data_preprocessor.device if raw else image.device
        batch = self.test_cfg.get('window_batch', 1 if device.type == 'cpu' else 8)
        if batch < 1:
            raise ValueError(f'test_cfg.window_batch is {batch}; it must be at least 1')
        for i in range(0, len(places), batch):
            crops = cut(image, windows, places[i:i + batch])
            if raw:
                crops = self.data_preprocessor(dict(inputs=list(crops)), False)['inputs']
            logits = self.encode_decode(crops, [meta] * len(crops))
            if tuple(logits.shape[2:]) != windows.size:
                raise ValueError(f'{type(self.decode_head).__name__} gave logits of {tuple(logits.shape[2:])} for '
                                 f'windows of {windows.size}; predict must resize them to the img_shape it is given')
            yield from logits.permute(0, 2, 3, 1)
            del logits  # before the next ones are computed

    @property
    def threshold(self) -> float | None:
        """The probability above which a single channel is labelled; None of several channels."""
        return threshold_of(self.decode_head)

    def labels(self, scores: Tensor) -> Tensor:
        """Returns the labels (n, W) of scores (n, W, C), by the threshold of the head; see :func:`labels_of`."""
        return labels_of(scores, self.threshold)


def cut(image: Tensor, windows: Windows, places: list[tuple[int, int]]) -> Tensor:
    """Cuts the windows at some places out of an image (3, H, W): (n, 3, h, w)."""
    height, width = windows.size
    return torch.stack([image[:, y:y + height, x:x + width] for y, x in places])


def probabilities(logits: Tensor) -> Tensor:
    """Returns the probabilities (n, W, C) of logits (n, W, C): the softmax, or the sigmoid of a single channel."""
    return logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(2)


def padding_of(meta: dict) -> tuple[int, int, int, int] | None:
    """Returns the padding (left, right, top, bottom) of an image, or None if it has none."""
    padding = tuple(meta.get('img_padding_size', meta.get('padding_size', ())))
    return padding if any(padding) else None


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

"""mmsegmentation's test-time augmentation, which here adds up the views of an image one by one."""

from collections.abc import Iterator

import torch
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from . import segmentor
from .bands import placed, regrouped
from .segmentor import LeanEncoderDecoder, PredictionBuffer, probabilities


@MODELS.register_module()
class LeanSegTTAModel(SegTTAModel):
    """SegTTAModel that keeps one sum of probabilities (H, W, C) for each image, and no logits of its views.

    Where that sum would take more than 1 GiB, the views are computed side by side, a few rows of each at a time.

    The results are mmsegmentation's, with two exceptions, and the mean probabilities as ``seg_probabilities`` if
    ``module.test_cfg`` has ``keep_probabilities``. They have the metadata of the first view, to which labels and
    path belong, not of the last. And the sigmoid of a model with a single output channel is applied once;
    mmsegmentation applies it twice, so that every mean exceeds 0.5 and, with the default threshold of 0.3, every
    pixel is foreground.

    Args:
        module: A LeanEncoderDecoder or its config.
        data_preprocessor: Replacement for the data preprocessor of ``module``.

    Raises:
        TypeError: ``module`` is another segmentor.
    """

    def __init__(self, module: dict | nn.Module, data_preprocessor: dict | nn.Module | None = None) -> None:
        super().__init__(module, data_preprocessor)
        if not isinstance(self.module, LeanEncoderDecoder):
            raise TypeError(f'LeanSegTTAModel needs a LeanEncoderDecoder, got {type(self.module).__name__}; '
                            'for that one use tta_model=dict(type="SegTTAModel")')

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Labels images by the mean of the probabilities of their views.

        Args:
            data: ``inputs[view][image]`` and ``data_samples[view][image]``.
        """
        return [self.predict_image(inputs, samples)
                for inputs, samples in zip(zip(*data['inputs']), zip(*data['data_samples']))]

    def predict_image(self, inputs: tuple[Tensor, ...], samples: tuple[SegDataSample, ...]) -> SegDataSample:
        """Labels one image, given its views (3, H, W) and their samples; returns the first sample with the labels.

        Raises:
            ValueError: the image is too large to be flipped vertically.
        """
        height, width = samples[0].ori_shape[:2]
        large = height * width * self.module.out_channels * 4 > segmentor.STRIP
        device = torch.device('cpu') if large else self.module.data_preprocessor.device
        means, buffer = self.side_by_side(inputs, samples) if large else self.one_by_one(inputs, samples), None
        for rows, mean in placed(means):
            buffer = buffer or PredictionBuffer(self.module, samples[0], device)  # not before the views are done
            buffer.fill(rows, slice(0, width), mean, lambda mean=mean: mean)
        buffer.put_into(samples[0])
        return samples[0]

    def one_by_one(self, inputs: tuple[Tensor, ...], samples: tuple[SegDataSample, ...]) -> Iterator[Tensor]:
        """Yields the mean probabilities of an image in bands (n, W, C), for which all views are computed first."""
        total = None
        for image, sample in zip(inputs, samples):
            total = self.add_view(total, image, sample)
        yield from total.div_(len(inputs)).split(self.rows_of_band(samples[0]))

    def add_view(self, total: Tensor | None, image: Tensor, sample: SegDataSample) -> Tensor:
        """Adds the probabilities of a view (3, H, W) to ``total`` (H, W, C); None stands for zeros."""
        for rows, logits in placed(self.rows_of(image, sample)):
            if total is None:
                total = logits.new_zeros((*sample.ori_shape[:2], self.module.out_channels))
            total[rows] += probabilities(logits)
        return total

    def side_by_side(self, inputs: tuple[Tensor, ...], samples: tuple[SegDataSample, ...]) -> Iterator[Tensor]:
        """Yields the mean probabilities of an image in bands (n, W, C)."""
        if any(sample.get('flip') and sample.get('flip_direction') == 'vertical' for sample in samples):
            raise ValueError(f'{samples[0].get("img_path")} is too large for vertical flips, whose last rows are '
                             'needed first: take them out of tta_pipeline')
        number = self.rows_of_band(samples[0])
        views = [regrouped(self.rows_of(image, sample), number) for image, sample in zip(inputs, samples)]
        for bands in zip(*views, strict=True):
            yield sum(probabilities(band) for band in bands) / len(bands)

    def rows_of_band(self, sample: SegDataSample) -> int:
        """Returns the number of rows of an image whose logits are a band."""
        row = sample.ori_shape[1] * self.module.out_channels * 4
        return max(1, segmentor.band_bytes(self.module.data_preprocessor.device) // row)

    def rows_of(self, image: Tensor, sample: SegDataSample) -> Iterator[Tensor]:
        """Yields the logits of a view (3, H, W), as the pipeline gives it, at the image's size in bands of rows."""
        if self.module.streams(image.shape[-2:]):
            return self.module.original_rows(image, sample.metainfo, raw=True)
        view = self.module.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)
        return self.module.original_rows(view['inputs'][0], view['data_samples'][0].metainfo)

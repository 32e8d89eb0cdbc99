"""mmsegmentation's test-time augmentation, which here adds up the views of an image one by one."""

from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .bands import placed
from .segmentor import LeanEncoderDecoder, probabilities


@MODELS.register_module()
class LeanSegTTAModel(SegTTAModel):
    """SegTTAModel that keeps one sum of probabilities (H, W, C) for each image, and no logits of its views.

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
        """Labels one image, given its views (3, H, W) and their samples; returns the first sample with the labels."""
        total = None
        for image, sample in zip(inputs, samples):
            view = self.module.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)
            total = self.add_view(total, view['inputs'][0], view['data_samples'][0].metainfo)
        total /= len(inputs)
        labels = self.module.labels(total).long()
        samples[0].set_data(dict(pred_sem_seg=PixelData(data=labels[None])))
        if self.module.test_cfg.get('keep_probabilities', False):
            samples[0].set_data(dict(seg_probabilities=PixelData(data=total.permute(2, 0, 1).half().cpu())))
        return samples[0]

    def add_view(self, total: Tensor | None, image: Tensor, meta: dict) -> Tensor:
        """Adds the probabilities of a view (3, H, W) to ``total`` (H, W, C); None stands for zeros."""
        if total is None:
            total = image.new_zeros((*meta['ori_shape'][:2], self.module.out_channels))
        for rows, logits in placed(self.module.original_rows(image, meta)):
            total[rows] += probabilities(logits)
        return total

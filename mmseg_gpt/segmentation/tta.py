"""mmsegmentation's test-time augmentation, whose views are added up one after the other."""

from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .bands import placed
from .segmentor import LeanEncoderDecoder


@MODELS.register_module()
class LeanSegTTAModel(SegTTAModel):
    """SegTTAModel that keeps one sum of probabilities (H, W, C) for an image, and no logits of its views.

    The results are mmsegmentation's, but for two things. They have the metadata of the first view, to which labels and
    path belong, in place of the last one's. And the sigmoid of a model with a single output channel is taken once;
    mmsegmentation takes it twice, which makes every mean exceed 0.5 and, with the default threshold of 0.3, every
    pixel foreground.

    Args:
        module: A LeanEncoderDecoder or its config.
        data_preprocessor: Replaces that of ``module``.

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
        return samples[0]

    def add_view(self, total: Tensor | None, image: Tensor, meta: dict) -> Tensor:
        """Adds the probabilities of a view (3, H, W) to ``total`` (H, W, C), which is made where it is None."""
        if total is None:
            total = image.new_zeros((*meta['ori_shape'][:2], self.module.out_channels))
        for rows, logits in placed(self.module.original_rows(image, meta)):
            total[rows] += logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(2)
        return total

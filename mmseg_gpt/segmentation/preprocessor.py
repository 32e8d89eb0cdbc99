"""mmsegmentation's data preprocessor, which here sends a batch to a GPU without waiting for it."""

import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from torch import Tensor


@MODELS.register_module()
class LeanSegDataPreProcessor(SegDataPreProcessor):
    """SegDataPreProcessor with the same options and results, which copies to the device as little as it can.

    Images and label maps travel as they are stored, 1 byte a value, and become float32 and int64 on the device. From
    pinned memory a GPU fetches them while the host goes on. Where :func:`mmseg_gpt.engine.batch.gathered` has put a
    batch of one size together they are one copy each. Labels of a test stay on the host, where they are compared.
    """

    takes_gathered = True  # is asked by the runner

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        if not hasattr(self, 'channel_conversion'):  # onedl-mmsegmentation has MMEngine's name, with an underscore
            self.channel_conversion = self._channel_conversion

    def forward(self, data: dict, training: bool = False) -> dict:
        """Sends, normalises and pads a batch.

        Args:
            data: ``inputs``, (B, C, H, W) or a list of (C, H, W); ``data_samples``, one for each image; and ``labels``,
                all label maps, (B, 1, H, W) or a list of (1, H, W), if they have been gathered.
            training: Whether images and label maps are padded to ``size`` or ``size_divisor``, and labels are sent.

        Raises:
            AssertionError: there are no samples in training, or images of a test have different sizes.
        """
        images, samples = self.normalised(data['inputs']), data.get('data_samples')
        if training:
            assert samples is not None, 'training needs data_samples'
            images, samples = self.padded(images, self.labelled(samples, data.get('labels')))
            if self.batch_augments is not None:
                images, samples = self.batch_augments(images, samples)
            return dict(inputs=images, data_samples=samples)
        assert isinstance(images, Tensor), 'The image size in a batch should be the same.'
        samples = None if samples is None else [sample.new() for sample in samples]  # those of the loader stay
        if self.test_cfg:
            images, paddings = stack_batch(
                list(images), size=self.test_cfg.get('size'), size_divisor=self.test_cfg.get('size_divisor'),
                pad_val=self.pad_val, seg_pad_val=self.seg_pad_val)
            for sample, padding in zip(samples or (), paddings):
                sample.set_metainfo(padding)
        return dict(inputs=images, data_samples=samples)

    def normalised(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Returns images on the device, with their channels in the model's order: (B, C, H, W), or a list of them.

        Args:
            inputs: The images, as they come out of the pipeline; a list remains one where sizes differ.
        """
        if not isinstance(inputs, Tensor):
            if len({image.shape for image in inputs}) > 1:  # their pixels in one row, for few operations
                rows = self.normalised(torch.cat([self.send(image).flatten(1) for image in inputs], 1)[None, :, None])
                each = rows[0, :, 0].split([image[0].numel() for image in inputs], 1)
                return [pixels.unflatten(1, image.shape[1:]) for pixels, image in zip(each, inputs)]
            inputs = [self.send(image) for image in inputs]
            inputs = torch.stack(inputs) if len(inputs) > 1 else inputs[0][None]
        images = self.send(inputs)
        if self.channel_conversion and images.shape[1] == 3:
            images = images.flip(1)  # a list of indices would be sent from the host
        images = images.float()
        return (images - self.mean).div_(self.std) if self._enable_normalize else images

    def send(self, tensor: Tensor) -> Tensor:
        """Returns a tensor on the device. From pinned memory nothing waits for a GPU."""
        return tensor.to(self.device, non_blocking=self.device.type == 'cuda')

    def labelled(self, samples: list[SegDataSample], labels: Tensor | list[Tensor] | None) -> list[SegDataSample]:
        """Returns copies of samples that have their label maps on the device, as int64.

        Args:
            samples: The samples.
            labels: Their label maps, (B, 1, H, W) or a list of (1, H, W), gathered. Where there are none, or a hook has
                given samples other maps, what each sample has is sent.
        """
        if labels is None or not all(is_same(sample.gt_sem_seg.data, label) for sample, label in zip(samples, labels)):
            copies = [sample.to(self.device, non_blocking=self.device.type == 'cuda') for sample in samples]
            maps = [sample.gt_sem_seg.data if 'gt_sem_seg' in sample else None for sample in copies]
        else:
            copies = [sample.new() for sample in samples]
            maps = self.send(labels).long() if isinstance(labels, Tensor) else map(self.send, labels)
        for sample, label in zip(copies, maps):
            if label is not None:
                sample.gt_sem_seg = PixelData(data=label.long())
        return copies

    def padded(self, images: Tensor | list[Tensor], samples: list[SegDataSample]) -> tuple[Tensor, list[SegDataSample]]:
        """Pads images and label maps at the bottom and right as ``stack_batch`` does, and says so in the samples."""
        height, width = images[0].shape[1:]
        if isinstance(images, Tensor) and self.size is not None and (height, width) == tuple(self.size):
            for sample in samples:
                shape = sample.gt_sem_seg.shape if 'gt_sem_seg' in sample else None
                sample.set_metainfo(dict(img_shape=images.shape[2:], pad_shape=shape, padding_size=(0, 0, 0, 0)))
            return images, samples
        return stack_batch(list(images), samples, self.size, self.size_divisor, self.pad_val, self.seg_pad_val)


def is_same(one: Tensor, other: Tensor) -> bool:
    """Returns whether two tensors are the same numbers in memory, in the same order."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()

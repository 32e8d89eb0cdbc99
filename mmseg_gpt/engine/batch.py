"""Training batches of mmsegmentation, put together so that a GPU can fetch them: in bytes, and in few pieces."""

from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from mmengine.structures import PixelData
from torch import Tensor
from torch.utils.data import default_collate


class GatheredBatch(dict):
    """A batch with the label maps of its samples as ``labels``, of which the samples have views.

    ``inputs`` and ``labels`` are one tensor each, (B, C, H, W) and (B, 1, H, W), or lists where sizes differ. torch's
    data loader calls ``pin_memory``, and would not look into samples itself.
    """

    def pin_memory(self) -> 'GatheredBatch':
        """Returns the batch in pinned memory, from which a GPU can fetch it by itself."""
        return GatheredBatch(self, inputs=pinned(self['inputs'])).labelled(pinned(self['labels']))

    def labelled(self, labels: Tensor | list[Tensor]) -> 'GatheredBatch':
        """Returns this batch, with other ``labels`` that its samples have views of."""
        self['labels'] = labels
        for sample, label in zip(self['data_samples'], labels):
            sample.gt_sem_seg = PixelData(data=label)
        return self


@FUNCTIONS.register_module()
def gathered(samples: list[dict]) -> dict:
    """Puts samples together as MMEngine's ``pseudo_collate`` does, images and label maps of one size as one tensor.

    In a worker process that is written straight to the memory that it shares with the main process. Label maps become
    uint8. Samples of other kinds, or with class numbers that are no bytes, are left as they are.

    Args:
        samples: What the dataset gives: ``inputs`` (C, H, W) and ``data_samples`` with ``gt_sem_seg``.
    """
    batch = pseudo_collate(samples)
    if not (isinstance(batch, dict) and batch.keys() == {'inputs', 'data_samples'}):
        return batch
    labels = [as_bytes(sample) for sample in batch['data_samples']]
    if any(label is None for label in labels) or not all(isinstance(image, Tensor) for image in batch['inputs']):
        return batch
    return GatheredBatch(batch, inputs=as_one(batch['inputs'])).labelled(as_one(labels))


def as_one(tensors: list[Tensor]) -> Tensor | list[Tensor]:
    """Returns tensors as one, or as they are where their shapes or types differ."""
    return default_collate(tensors) if len({(each.shape, each.dtype) for each in tensors}) == 1 else tensors


def pinned(tensors: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """Returns tensors in pinned memory."""
    return tensors.pin_memory() if isinstance(tensors, Tensor) else [each.pin_memory() for each in tensors]


def as_bytes(sample: object) -> Tensor | None:
    """Returns the label map (1, H, W) of a sample as uint8; None if it has another one, or more than that."""
    if not hasattr(sample, 'keys') or list(sample.keys()) != ['gt_sem_seg']:
        return None
    label = sample.gt_sem_seg.data
    if not isinstance(label, Tensor) or label.is_floating_point():
        return None
    lowest, highest = label.aminmax()
    return label.byte() if lowest >= 0 and highest <= 255 else None

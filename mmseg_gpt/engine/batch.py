"""Training batches of mmsegmentation, put together so that each kind of data is copied once on its way to a GPU."""

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import FUNCTIONS
from mmengine.structures import PixelData
from torch import Tensor
from torch.utils.data import default_collate


class GatheredBatch(dict):
    """A batch with ``inputs`` (B, C, H, W) in one tensor, and ``labels`` (B, 1, H, W) of which the samples have views.

    torch's data loader calls ``pin_memory``, and would not look into samples itself.
    """

    def pin_memory(self) -> 'GatheredBatch':
        """Returns the batch in pinned memory, from which a GPU can fetch it by itself."""
        return GatheredBatch(self, inputs=self['inputs'].pin_memory()).labelled(self['labels'].pin_memory())

    def labelled(self, labels: Tensor) -> 'GatheredBatch':
        """Returns this batch, with other ``labels`` (B, 1, H, W) that its samples have views of."""
        self['labels'] = labels
        for sample, label in zip(self['data_samples'], labels):
            sample.gt_sem_seg = PixelData(data=label)
        return self


@FUNCTIONS.register_module()
def gathered(samples: list[dict]) -> dict:
    """Puts samples together as MMEngine's ``pseudo_collate`` does, images and label maps each as one tensor.

    In a worker process they are written straight to the memory that it shares with the main process. Label maps become
    uint8. Samples of other kinds, sizes or types, or with class numbers that are no bytes, are left as they are.

    Args:
        samples: What the dataset gives: ``inputs`` (C, H, W) and ``data_samples`` with ``gt_sem_seg``.
    """
    batch = pseudo_collate(samples)
    if not (isinstance(batch, dict) and batch.keys() == {'inputs', 'data_samples'}):
        return batch
    labels = [as_bytes(sample) for sample in batch['data_samples']]
    if any(label is None for label in labels) or not (is_even(labels) and is_even(batch['inputs'])):
        return batch
    return GatheredBatch(batch, inputs=default_collate(batch['inputs'])).labelled(default_collate(labels))


def as_bytes(sample: object) -> Tensor | None:
    """Returns the label map (1, H, W) of a sample as uint8; None if it has another one, or more than that."""
    if not hasattr(sample, 'keys') or list(sample.keys()) != ['gt_sem_seg']:
        return None
    label = sample.gt_sem_seg.data
    if not isinstance(label, Tensor) or label.is_floating_point():
        return None
    lowest, highest = label.aminmax()
    return label.byte() if lowest >= 0 and highest <= 255 else None


def is_even(values: list) -> bool:
    """Returns whether values are tensors of one shape and one type."""
    return (all(isinstance(value, torch.Tensor) for value in values)
            and len({(value.shape, value.dtype) for value in values}) == 1)

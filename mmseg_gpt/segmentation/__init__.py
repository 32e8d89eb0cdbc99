"""What needs mmsegmentation: the heads, the segmentor, test-time augmentation and the metric. Importing registers it."""

from .metrics import PerClassIoUMetric

__all__ = ['PerClassIoUMetric']

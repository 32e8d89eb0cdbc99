"""What needs mmsegmentation, all in one place: importing this package registers it."""

from .metrics import PerClassIoUMetric
from .setr_head import LeanSETRUPHead

__all__ = ['LeanSETRUPHead', 'PerClassIoUMetric']

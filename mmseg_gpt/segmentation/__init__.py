"""What needs mmsegmentation, all in one place: importing this package registers it."""

from .metrics import PerClassIoUMetric

__all__ = ['PerClassIoUMetric']

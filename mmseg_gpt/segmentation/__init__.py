"""What needs mmsegmentation, all in one place: importing this package registers it."""

from .metrics import PerClassIoUMetric
from .segmentor import LeanEncoderDecoder
from .tta import LeanSegTTAModel

__all__ = ['LeanEncoderDecoder', 'LeanSegTTAModel', 'PerClassIoUMetric']

"""What needs mmsegmentation, all in one place: importing this package registers it."""

from .crop import HistogramRandomCrop
from .metrics import PerClassIoUMetric
from .segmentor import LeanEncoderDecoder
from .setr_head import LeanSETRUPHead
from .tta import LeanSegTTAModel

__all__ = ['HistogramRandomCrop', 'LeanEncoderDecoder', 'LeanSETRUPHead', 'LeanSegTTAModel', 'PerClassIoUMetric']

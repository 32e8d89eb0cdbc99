"""What needs mmsegmentation, all in one place: importing this package registers it."""

from . import losses  # noqa: F401  mends mmsegmentation's
from .crop import HistogramRandomCrop
from .dice import ClassDiceLoss
from .lean_head import LeanFCNHead, LeanSegmenterMaskTransformerHead, LeanUPerHead
from .linear_head import LinearHead
from .listed import ListedPairs
from .metrics import PerClassIoUMetric
from .preprocessor import LeanSegDataPreProcessor
from .segmentor import LeanEncoderDecoder
from .setr_head import LeanSETRUPHead
from .tta import LeanSegTTAModel

__all__ = [
    'ClassDiceLoss', 'HistogramRandomCrop', 'LeanEncoderDecoder', 'LeanFCNHead', 'LeanSETRUPHead',
    'LeanSegDataPreProcessor', 'LeanSegTTAModel', 'LeanSegmenterMaskTransformerHead', 'LeanUPerHead', 'LinearHead',
    'ListedPairs', 'PerClassIoUMetric'
]

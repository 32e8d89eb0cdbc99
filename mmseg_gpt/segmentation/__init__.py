"""What needs mmsegmentation, all in one place: importing this package registers it."""

from ..compat import place_names_at_once
from . import losses
from .camvid import CamVid
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

place_names_at_once()

__all__ = [
    'CamVid', 'ClassDiceLoss', 'HistogramRandomCrop', 'LeanEncoderDecoder', 'LeanFCNHead', 'LeanSETRUPHead',
    'LeanSegDataPreProcessor', 'LeanSegTTAModel', 'LeanSegmenterMaskTransformerHead', 'LeanUPerHead', 'LinearHead',
    'ListedPairs', 'PerClassIoUMetric', 'losses'
]

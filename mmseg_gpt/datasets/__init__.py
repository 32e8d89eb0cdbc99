"""Checks of images and labels: of files, of datasets, and of each sample on its way into a batch."""

from .guarded import GuardedDataset, SampleError
from .introspect import batch_is_ignored, label_rule, sample_files, source_datasets
from .load_bands import LoadBands
from .pairs import Inspection, LabelRule, check_headers, check_values, inspect_pair
from .reading import PixelError
from .survey import Survey, survey

__all__ = [
    'GuardedDataset', 'Inspection', 'LabelRule', 'LoadBands', 'PixelError', 'SampleError', 'Survey', 'batch_is_ignored',
    'check_headers', 'check_values', 'inspect_pair', 'label_rule', 'sample_files', 'source_datasets', 'survey'
]

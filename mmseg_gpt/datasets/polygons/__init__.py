"""Polygons and run lengths of annotation tools, drawn into masks."""

from .recognise import TOOLS
from .shapes import LabelsError
from .write import Converted, convert_labels

__all__ = ['TOOLS', 'Converted', 'LabelsError', 'convert_labels']

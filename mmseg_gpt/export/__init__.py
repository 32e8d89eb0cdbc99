"""Models as files that run without this project: ONNX, and PyTorch's own exported programs."""

from .measure import measure
from .program import Program, folded
from .tiles import FileLabeller
from .write import Choices, Exported, export_task

__all__ = ['Choices', 'Exported', 'FileLabeller', 'Program', 'export_task', 'folded', 'measure']

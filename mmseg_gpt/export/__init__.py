"""Models as files that run without this project: ONNX, and PyTorch's own exported programs."""

from .labeller import FileLabeller
from .measure import measure
from .program import Program, folded
from .write import Choices, Exported, export_task

__all__ = ['Choices', 'Exported', 'FileLabeller', 'Program', 'export_task', 'folded', 'measure']

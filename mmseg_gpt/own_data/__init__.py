"""From a folder of one's own images to a trained and measured model: ``mmseg-gpt adapt`` and ``mmseg_gpt.adapt``."""

from .api import adapt
from .options import OwnDataError, Request
from .result import Adapted, load

__all__ = ['Adapted', 'OwnDataError', 'Request', 'adapt', 'load']

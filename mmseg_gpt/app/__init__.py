"""A page to look at predictions: masks over a photograph, and what the model attends to at a place of it.

Numbers and pictures come from plain functions, :mod:`.looking` and :mod:`.pictures`; :class:`.desk.Desk` answers for
photographs, and :mod:`.page` and :mod:`.server`, which need gradio, show it.
"""

from .desk import Desk
from .looking import block_numbers, seen_at
from .photograph import Limits, Photograph

__all__ = ['Desk', 'Limits', 'Photograph', 'block_numbers', 'seen_at']

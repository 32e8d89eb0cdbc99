"""What the prompts learnt: pure functions on numbers, and the figures drawn from them."""

from .gates import GateReport, plot_gates, read_gates, selection_ratio, selection_weights

__all__ = ['GateReport', 'plot_gates', 'read_gates', 'selection_ratio', 'selection_weights']

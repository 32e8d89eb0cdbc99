"""What the prompts learnt: pure functions on numbers, and the figures drawn from them."""

from .gate_figures import plot_gates, plot_history
from .gates import (
    GateHistory,
    GateReport,
    read_checkpoint,
    read_gates,
    read_history,
    selection_ratio,
    selection_weights,
)

__all__ = ['GateHistory', 'GateReport', 'plot_gates', 'plot_history', 'read_checkpoint', 'read_gates', 'read_history',
           'selection_ratio', 'selection_weights']

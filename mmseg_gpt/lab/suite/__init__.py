"""Many runs: tables and figures of the paper, and searches of hyperparameters.

:mod:`.plans` and :mod:`.search` say which runs, :mod:`..runs` carries them out, :mod:`.tables` and :mod:`.reports`
show what they have given.
"""

from ..runs import outcomes, work
from .parameters import count_parameters, total_params
from .plans import PLANS, plan, runs_of, select, with_options
from .reports import write_search, write_table
from .search import grid

__all__ = ['PLANS', 'count_parameters', 'grid', 'outcomes', 'plan', 'runs_of', 'select', 'total_params', 'with_options',
           'work', 'write_search', 'write_table']

"""The figures of a study, from what is in results.json."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...analysis.series import draw_lines
from ..written import point, points
from .sets import SETS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ('start_blocks', 'prompt_counts')  # tables that are drawn


def shown(results: dict) -> tuple[str, dict]:
    """Returns which images the tables are of, and these tables: of the test images as soon as there are numbers."""
    which = 'test' if is_measured(results['test']['methods']) else 'validation'
    return which, results[which]


def is_measured(table: dict | None) -> bool:
    """Returns whether a table has numbers."""
    return bool(table) and any(row['values'] for row in table['rows'])


def unit(results: dict) -> str:
    """Returns what is measured."""
    return 'mIoU (%)' if results['about']['score'] == 'mIoU' else 'accuracy (%)'


def figures(results: dict) -> Iterator[tuple[str, 'Figure']]:
    """Yields the figures for which there are numbers, with their names."""
    which, tables = shown(results)
    for name in LINES:
        drawn = points(tables[name]) if name in tables else []
        if drawn:
            yield name, draw_lines(drawn, tables[name]['title'], tables[name]['x'],
                                   f'{unit(results)} ({which} images)', name == 'prompt_counts')


def selection_figure(found: Sequence[dict]) -> 'Figure | None':
    """Returns Figure 4, the selection ratios of Gated Prompt Tuning on all sets; None where there are none.

    Args:
        found: The results of each set.
    """
    drawn = []
    for results in found:
        name, seeds = SETS[results['about']['set']].title, results['selection_ratios']
        drawn += [point('', name, block + 1, [100 * ratio[block] for ratio in seeds])
                  for block in range(len(seeds[0]) if seeds else 0)]
    return draw_lines(drawn, 'What the gates select', 'block', 'selection ratio (%)') if drawn else None

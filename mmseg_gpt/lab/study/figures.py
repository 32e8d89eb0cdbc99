"""The figures of a study, from what is in results.json."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...analysis.series import draw_lines
from ..written import points

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

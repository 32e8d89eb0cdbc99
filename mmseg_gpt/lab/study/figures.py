"""The figures of a study, from what is in results.json."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...analysis.series import draw_lines
from ..rates import MIOU
from ..written import point, points
from .sets import SETS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ('start_blocks', 'prompt_counts')  # tables that are drawn
NOTHING = dict(title='', labels=[], columns=[], x='', panels='', rows=[])  # a table of a part that a set lacks


def shown(results: dict, name: str) -> tuple[str, dict]:
    """Returns a table, and which images it is of: the test images as soon as there are numbers of them."""
    which = 'test' if is_measured(results['test'].get(name)) else 'validation'
    return which, results[which].get(name, dict(NOTHING))


def is_measured(table: dict | None) -> bool:
    """Returns whether a table has numbers."""
    return bool(table) and any(row['values'] for row in table['rows'])


def is_drawn(name: str, table: dict) -> bool:
    """Returns whether a table is one of ``LINES``, and has numbers of two places on the axis at least."""
    return name in LINES and len({each.x for each in points(table)}) > 1


def unit(name: str) -> str:
    """Returns what is measured on a set."""
    return 'mIoU (%)' if SETS[name].score == MIOU else 'accuracy (%)'


def figures(results: dict) -> Iterator[tuple[str, 'Figure']]:
    """Yields the figures for which there are numbers, with their names."""
    for name in LINES:
        which, table = shown(results, name)
        if is_drawn(name, table):
            what = f'{unit(results["about"]["set"])}, {which} images'
            yield name, draw_lines(points(table), table['title'], table['x'], what, logarithmic=name == 'prompt_counts')


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

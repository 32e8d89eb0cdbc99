"""The figures of the miniature, from what is in results.json."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...analysis.series import Point, draw_dots, draw_lines
from ...recipes.titles import title
from ..written import point, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAIN = ('segmentation', 'classification')  # the tables of methods


def figures(results: dict) -> Iterator[tuple[str, 'Figure']]:
    """Yields the figures for which there are numbers, with their names."""
    for name, points_of in POINTS.items():
        table, drawn = results['tables'][name], points_of(results)
        if not drawn:
            continue
        if name in MAIN:
            unit = 'mIoU (%)' if name == 'segmentation' else 'accuracy (%)'
            yield name, draw_dots(drawn, table['title'], unit, len({p.panel.partition(':')[0] for p in drawn}))
        elif name == 'figure4':
            yield name, draw_lines(drawn, table['title'], 'block', 'selection ratio (%)')
        else:
            yield name, draw_lines(drawn, table['title'], table['x'], 'accuracy (%)', name == 'figure7')


def method_points(table: dict) -> list[Point]:
    """Returns the points of a table: a panel for each column and ViT, the methods below one another."""
    return [point(f'{title(vit)}: {column}', title(method), 0.,
                  list(row['values'][column].values()))
            for column in table['columns'] for row in table['rows'] if column in row['values']
            for vit, method in [row['name']]]


def ratio_points(ratios: Mapping[str, list[list[float]]]) -> list[Point]:
    """Returns the points of Figure 4: a panel for each task, a line for each ViT."""
    found = []
    for name, seeds in ratios.items():
        vit, _, task = name.partition(' ')
        found += [point(task, title(vit), block + 1, [100 * ratio[block] for ratio in seeds])
                  for block in range(len(seeds[0]))]
    return found


POINTS = {
    'segmentation': lambda results: method_points(results['tables']['segmentation']),
    'classification': lambda results: method_points(results['tables']['classification']),
    'figure1': lambda results: points(results['tables']['figure1']),
    'figure7': lambda results: points(results['tables']['figure7']),
    'figure4': lambda results: ratio_points(results['selection_ratios']),
}

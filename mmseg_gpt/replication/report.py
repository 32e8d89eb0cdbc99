"""The results as people read them: Markdown, CSV, figures, and the part of the README that is made from them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from ..analysis.figures import write_figure
from ..analysis.series import Point, draw_dots, draw_lines
from ..suite.tables import NAMES, markdown_row, written
from .claims import FAILS, HOLDS, NOISE, SELF_SUPERVISED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / 'docs/replication'
README = ROOT / 'README.md'
BEGIN, END = '<!-- replication: made by tools/replicate.py -->', '<!-- end of replication -->'
NOT_ADAPTED = ('linear', 'full')
MAIN = ('segmentation', 'classification')


def write(results: dict, folder: Path) -> str:
    """Writes results.md, .csv, .json and the figures, and returns what is in the first."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    for suffix, content in (('md', text), ('csv', as_csv(results)), ('json', json.dumps(results, indent=1) + '\n')):
        (folder / f'results.{suffix}').write_text(content, encoding='utf-8')
    for name, figure in figures(results):
        write_figure(figure, folder / f'{name}.png')
    return text


def markdown(results: dict) -> str:
    """Everything, as Markdown."""
    tables = results['tables']
    parts = ['# The paper in miniature', conditions(results['about']), '## Claims of the paper',
             claims(results['claims'])]
    for name in MAIN:
        parts += [f'## {tables[name]["title"]}', by_method(tables[name], results['parameters'])]
    for name in ('figure1', 'figure7', 'gates'):
        parts += [f'## {tables[name]["title"]}', plain(tables[name])]
    parts += ['How far the gate furthest from its prior went, in gamma (mean over the seeds; 0 is exactly 0):',
              moved(results['moved']), '## Each comparison', comparisons(results['claims']), '## Learning rates',
              rates(results['rates'])]
    return '\n\n'.join(part for part in parts if part) + '\n'


def conditions(about: dict) -> str:
    """What it was measured with."""
    versions = ', '.join(f'{name} {version}' for name, version in about['versions'].items())
    said = [f'`{about["command"]}`: {about["finished"]} of {about["runs"]} runs finished',
            *([f'{about["failed"]} failed'] if about['failed'] else []),
            f'{about["hours"]} hours of runs on {about["device"]}, {about["cpus"]} CPUs side by side', about['date'],
            f'python {about["python"]}, {versions}']
    pretraining = ', '.join(f'{NAMES.get(vit, vit)} {n}' for vit, n in about['pretraining'].items())
    adaptation = ', '.join(f'{n} ({task})' for task, n in about['iterations'].items())
    return (f'{"; ".join(said)}.\n\nSeeds {", ".join(map(str, about["seeds"]))} on test images; learning rates chosen '
            f'on validation images with seed 0. ViTs of 12 blocks, width 64 and 36 patches, pretrained for '
            f'{pretraining} iterations on {about["images"]["pretraining"]["train"]} images; adapted in {adaptation} '
            f'iterations, with {about["prompts"]} prompts in all where there are prompts. Mean ± standard deviation, '
            'in percent.')


def cell(values: Mapping[str, float] | None, bold: bool = False) -> str:
    """The mean over seeds and its standard deviation."""
    found = list((values or {}).values())
    if not found:
        return ''
    text = f'{mean(found):.2f}' + (f' ± {stdev(found):.2f}' if len(found) > 1 else '')
    return f'**{text}**' if bold else text


def grid(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A table whose columns but for the first ``left`` are numbers."""
    return '\n'.join([markdown_row(header), markdown_row(['---'] * left + ['---:'] * (len(header) - left)),
                      *map(markdown_row, rows)])


def by_method(table: dict, parameters: Mapping[str, dict[str, int]]) -> str:
    """A row for each method; a column for each ViT and task. The best of the frozen methods is bold."""
    found = {tuple(row['name']): row['values'] for row in table['rows']}
    vits, methods = (list(dict.fromkeys(name[i] for name in found)) for i in (0, 1))
    columns = [(vit, column) for vit in vits for column in table['columns']]
    best = {place: best_method(found, methods, *place) for place in columns}
    rows = []
    for method in methods:
        trained = parameters.get(method, {}).get('trained')
        rows.append([NAMES.get(method, method), '' if trained is None else f'{trained:,}', *(
            cell(found.get((vit, method), {}).get(column), best[vit, column] == method) for vit, column in columns)])
    return grid(['Method', 'Trained in the ViT', *(f'{NAMES.get(vit, vit)}: {column}' for vit, column in columns)],
                rows, 1)


def best_method(found: Mapping[tuple[str, ...], dict], methods: Sequence[str], vit: str, column: str) -> str | None:
    """That of the highest mean, of those that adapt a ViT without training all of it."""
    means = {method: mean(found[vit, method][column].values()) for method in methods
             if method not in NOT_ADAPTED and found.get((vit, method), {}).get(column)}
    return max(means, key=means.get, default=None)


def plain(table: dict) -> str:
    """A table as it is."""
    header = [*(label if label == 'SSL' else label.capitalize() for label in table['labels']), *table['columns']]
    return grid(header, ([*(NAMES.get(part, part) for part in row['name']),
                          *(cell(row['values'].get(column)) for column in table['columns'])]
                         for row in table['rows']), len(table['labels']))


def moved(found: Sequence[dict]) -> str:
    """How far gates have moved."""
    tasks, names = (list(dict.fromkeys(each[key] for each in found)) for key in ('task', 'gates'))
    values = {(each['gates'], each['task']): f'{mean(each["moved"].values()):.3g}' for each in found}
    return grid(['Gates', *tasks], ([name, *(values.get((name, task), '') for task in tasks)] for name in names), 1)


def claims(found: Sequence[dict]) -> str:
    """What holds."""
    rows = []
    for claim in found:
        counts = [sum(c['verdict'] == verdict for c in claim['comparisons']) for verdict in (HOLDS, NOISE, FAILS)]
        rows.append([claim['text'], claim['source'], *(
            f'{count} of {len(claim["comparisons"])}' if count else '' for count in counts)])
    return grid(['The paper says', 'Where', 'Holds', 'Within the noise', 'Does not hold'], rows, 2)


def comparisons(found: Sequence[dict]) -> str:
    """Each difference behind the claims."""
    return grid(['Claim', 'On', 'Verdict', 'Difference', 'p'], (
        [claim['text'], c['where'], c['verdict'], f'{c["difference"]:+.2f}', f'{c["p"]:.3f}']
        for claim in found for c in claim['comparisons']), 3)


def rates(found: Sequence[dict]) -> str:
    """What the search gave."""
    alone = [each for each in found if each['method'] == 'linear']
    return '\n\n'.join([rates_of('the head, alone', 'head', alone), rates_of(
        'what is trained in the ViT', 'backbone', [each for each in found if each not in alone])])


def rates_of(what: str, chosen: str, found: Sequence[dict]) -> str:
    """A part of the search; the chosen learning rate is bold."""
    columns = list(dict.fromkeys(rate for each in found for rate in each['validation']))
    edge = sum(f'{each[chosen]:g}' in (columns[0], columns[-1]) for each in found)
    rows = [[*(NAMES.get(each[key], each[key]) for key in ('task', 'vit', 'method')),
             *(searched(each['validation'].get(rate), f'{each[chosen]:g}' == rate) for rate in columns)]
            for each in found]
    return (f'Of {what}; the result on the validation images, the chosen one bold ({edge} of {len(found)} are at an '
            f'edge of the grid):\n\n{grid(["Task", "SSL", "Method", *columns], rows, 3)}')


def searched(value: float | None, chosen: bool) -> str:
    """A number of the search."""
    text = '' if value is None else f'{value:.2f}'
    return f'**{text}**' if chosen else text


def as_csv(results: dict) -> str:
    """One line for each number: its table, row, column, seed and value."""
    return written([['table', 'row', 'column', 'seed', 'value'], *(
        [name, ' '.join(row['name']), column, seed, value] for name, table in results['tables'].items()
        for row in table['rows'] for column, values in row['values'].items() for seed, value in values.items())])


def figures(results: dict) -> Iterator[tuple[str, 'Figure']]:
    """The figures of which there are numbers, by name."""
    tables = results['tables']
    for name, unit in (('segmentation', 'mIoU (%)'), ('classification', 'accuracy (%)')):
        if drawn := method_points(tables[name]):
            yield name, draw_dots(drawn, tables[name]['title'], unit, len({p.panel.partition(':')[0] for p in drawn}))
    for name, logarithmic in (('figure1', False), ('figure7', True)):
        if drawn := points(tables[name]):
            yield name, draw_lines(drawn, tables[name]['title'], tables[name]['x'], 'accuracy (%)', logarithmic)
    if drawn := ratio_points(results['selection_ratios']):
        yield 'figure4', draw_lines(drawn, 'Figure 4 in miniature. Selection ratios of Gated Prompt Tuning', 'block',
                                    'selection ratio (%)')


def method_points(table: dict) -> list[Point]:
    """The points of a table: a panel for each column and ViT, the methods below one another."""
    return [point(f'{NAMES.get(vit, vit)}: {column}', NAMES.get(method, method), 0.,
                  list(row['values'][column].values()))
            for column in table['columns'] for row in table['rows'] if column in row['values']
            for vit, method in [row['name']]]


def points(table: dict) -> list[Point]:
    """The points of a figure."""
    found = []
    for row in table['rows']:
        names = dict(zip(table['labels'], (NAMES.get(part, part) for part in row['name'])))
        panel = names.pop(table['panels'], '')
        for column, values in row['values'].items():
            found.append(point(panel, ' '.join(names.values()), float(column), list(values.values())))
    return found


def ratio_points(ratios: Mapping[str, list[list[float]]]) -> list[Point]:
    """The points of Figure 4: a panel for each task, a line for each ViT."""
    found = []
    for name, seeds in ratios.items():
        vit, _, task = name.partition(' ')
        if vit in SELF_SUPERVISED:
            found += [point(task, NAMES.get(vit, vit), block + 1, [100 * ratio[block] for ratio in seeds])
                      for block in range(len(seeds[0]))]
    return found


def point(panel: str, series: str, x: float, values: list[float]) -> Point:
    """A mean and its standard deviation."""
    return Point(panel, series, x, mean(values), stdev(values) if len(values) > 1 else None, len(values))


def readme_part(results: dict) -> str:
    """What the README says of the results."""
    tables = results['tables']
    return '\n\n'.join([
        BEGIN, conditions(results['about']), claims(results['claims']),
        *(f'{tables[name]["title"]}:\n\n{by_method(tables[name], results["parameters"])}' for name in MAIN),
        f'{tables["gates"]["title"]}:\n\n{plain(tables["gates"])}', END])


def publish(results: dict, folder: Path = PUBLISHED, readme: Path = README) -> None:
    """Writes the results into the documentation, and their part of the README.

    Raises:
        SystemExit: the README has no place for them.
    """
    text = readme.read_text(encoding='utf-8')
    place = re.compile(f'{re.escape(BEGIN)}.*?{re.escape(END)}', re.DOTALL)
    if not place.search(text):
        raise SystemExit(f'{readme} has no lines "{BEGIN}" and "{END}", between which the results would go')
    write(results, folder)
    readme.write_text(place.sub(lambda _: readme_part(results), text), encoding='utf-8')

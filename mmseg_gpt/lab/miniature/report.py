"""The results as people read them: Markdown, CSV, figures, and a part of a page of the documentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...analysis.gates import MOVED
from ...analysis.series import mean_and_std
from ...recipes.titles import title
from ...resources import CLONE
from ...wording import markdown_table
from ..gates import PRIOR, SGD_HEAD
from ..suite.tables import to_csv
from ..written import BOLD, best_adapting, cell, number_tried, plain, put_between, write_results
from .claims import FAILS, HOLDS, LEVEL, NOISE, gate_comparisons
from .figures import MAIN, POINTS, figures
from .plan import DEPTH, PAPER

PUBLISHED = CLONE / 'docs/replication'
PAGE = CLONE / 'docs/miniature.md'
BEGIN, END = '<!-- replication: made by tools/replicate.py -->', '<!-- end of replication -->'


def write(results: dict, folder: Path) -> str:
    """Writes results.md, .csv, .json and the figures, and returns what is in the first."""
    return write_results(results, folder, markdown(results), as_csv(results), figures(results))


def markdown(results: dict) -> str:
    """Returns all results as a page of Markdown."""
    tables, about, seeds = results['tables'], results['about'], len(results['about']['seeds'])
    parts = ['# The paper in miniature: all results', conditions(results), '## Claims of the paper',
             claims(results['claims'])]
    for name in MAIN:
        parts += [f'## {tables[name]["title"]}', BOLD, by_method(tables[name], results['parameters'], seeds),
                  picture(results, name)]
    for name, note in (('figure1', 'Learning rates are those of prompts that enter at block 1.'),
                       ('figure7', f'Learning rates are those of {about["prompts"]} prompts.')):
        parts += [f'## {tables[name]["title"]}', note, plain(tables[name], seeds), picture(results, name)]
    parts += [f'## {tables["figure4"]["title"]}',
              f'All with the learning rate {about["common"]:g}, as a higher one alone makes gates differ more. Where '
              f'gates moved by less than {MOVED:g} in gamma, no line is drawn.', picture(results, 'figure4'),
              f'## {tables["gates"]["title"]}', gates(results), '## Each comparison', comparisons(results['claims']),
              '## Learning rates', rates(results)]
    return '\n\n'.join(part for part in parts if part) + '\n'


def picture(results: dict, name: str, folder: str = '') -> str:
    """Returns the Markdown of a figure, if there are numbers for it."""
    return f'![{results["tables"][name]["title"]}]({folder}{name}.png)' if POINTS[name](results) else ''


def conditions(results: dict) -> str:
    """Returns what was measured, with what, and how."""
    about = results['about']
    machine = '; '.join(', '.join(about[key]) for key in ('device', 'versions') if about[key])
    failed = f', {about["failed"]} failed' if about['failed'] else ''
    commits = f'; commit {", ".join(about["commit"])}' if about['commit'] else ''
    said = [f'`{about["command"]}`: {about["finished"]} of {about["runs"]} runs finished{failed}, {about["hours"]} '
            f'hours if one after the other. {machine}; python {", ".join(about["python"])}{commits}.',
            budgets(about), searching(results)]
    if about['preset'] == 'quick':
        said.append('**The quick preset shows that every step works. Its models have learnt nothing.**')
    return '\n\n'.join(said)


def budgets(about: dict) -> str:
    """Returns what all methods share: seeds, images, iterations and prompts."""
    pretraining, adaptation = (', '.join(f'{title(name)} {n:,}' for name, n in about[key].items())
                               for key in ('pretraining', 'iterations'))
    images = ', '.join(f'{name} {"/".join(f"{n:,}" for n in about["images"][name].values())}'
                       for name in about['iterations'])
    return (f'Numbers are the mean ± standard deviation over the seeds {listed(about["seeds"])} on test images, in '
            'percent. They are seeds of the adaptation; ViTs, images and learning rates are the same. ViTs of 12 '
            'blocks, width 64 and 36 patches were pretrained on '
            f'{about["images"]["pretraining"]["train"]:,} images (iterations: {pretraining}) and '
            f'adapted (iterations: {adaptation}; images of training, validation and test: '
            f'{images}), with {about["prompts"]} prompts in all where there are prompts (VPT-deep has '
            f'{about["prompts"] // DEPTH} in each block). Gates start at a prior of {PRIOR:g}, hard gates at 0.')


def searching(results: dict) -> str:
    """Says how learning rates were chosen, and how many of the best are at an edge of their grid."""
    about = results['about']
    heads = [each['head'] for each in results['rates'] if each['backbone'] is None]
    others = [each['backbone'] for each in results['rates'] if each['backbone'] is not None]
    at_edge = sum(head in (min(about['heads']), max(about['heads'])) for head in heads)
    lowest, highest = (others.count(edge(about['rates'])) for edge in (min, max))
    return (f'Learning rates were chosen on the validation images, with seed {about["search_seed"]}: first that of '
            f'the head, with the head alone ({listed(about["heads"])}); then, with it and for each method, that of '
            f'what the method trains in the ViT ({listed(about["rates"])}). A better one may lie beyond the edge of '
            f'its grid: {at_edge} of {len(heads)} heads have the lowest or highest; of {len(others)} others {lowest} '
            f'have the lowest and {highest} the highest.')


def listed(values: Sequence[float]) -> str:
    """Returns numbers, separated by commas."""
    return ', '.join(f'{value:g}' for value in values)


def by_method(table: dict, parameters: Mapping[str, int], seeds: int) -> str:
    """Returns a row for each method, a column for each ViT and task; the best method that adapts is bold."""
    found = {tuple(row['name']): row['values'] for row in table['rows']}
    vits, methods = (list(dict.fromkeys(name[i] for name in found)) for i in (0, 1))
    columns = [(vit, column) for vit in vits for column in table['columns']]
    best = {(vit, column): best_adapting(
        {method: found.get((vit, method), {}).get(column, {}) for method in methods}, seeds) for vit, column in columns}
    rows = []
    for method in methods:
        trained = parameters.get(method)
        values = {(vit, column): found.get((vit, method), {}).get(column) for vit, column in columns}
        rows.append([title(method), '' if trained is None else f'{trained:,}',
                     *(cell(value, seeds, best[place] == method) for place, value in values.items())])
    return markdown_table(['Method', 'Trained in the ViT', *(f'{title(vit)}: {column}' for vit, column in columns)],
                          rows)


def gates(results: dict) -> str:
    """Returns what the variants of gates gave, how far their gates went, and which differ from that of the tables."""
    table, seeds = results['tables']['gates'], len(results['about']['seeds'])
    compared = gate_comparisons(table, seeds)
    differ = {c.where: c.verdict for c in compared}
    words = {HOLDS: ' (better)', FAILS: ' (worse)'}
    moved = {(each['gates'], each['task']): each for each in results['moved']}
    rows = []
    for row in table['rows']:
        name, = row['name']
        rows.append([name, *(cell(row['values'].get(task), seeds) + words.get(differ.get(f'{name} {task}'), '')
                             for task in table['columns']),
                     *(part for task in table['columns'] for part in furthest(moved.get((name, task))))])
    header = ['Gates', *table['columns'], *(f'{what} ({task})' for task in table['columns']
                                            for what in ('learning rate', 'furthest gate'))]
    return (f'{markdown_table(header, rows)}\n\n*Better* and *worse* are differences from the first row (with SGD, '
            f'from *{PAPER}*, the paper\'s for ADE20K) by the test of the claims. {chance(len(compared))} The furthest '
            'gate is the one that went furthest from its prior, in gamma: mean and standard deviation; 0 is exactly 0. '
            'AdamW, which all but the last rows have, moves a gate by about its learning rate in an iteration, whether '
            'its gradient is large or small (down to some 1e-8); SGD moves it by its gradient times that. With SGD '
            f'nothing was searched, and the head has a learning rate of {SGD_HEAD:g}.')


def chance(compared: int) -> str:
    """Returns what to expect of many comparisons by chance."""
    return (f'Of {compared} comparisons at {100 * LEVEL:g} %, about {LEVEL * compared:.0f} would come out as a '
            'difference where there is none.')


def furthest(found: dict | None) -> tuple[str, str]:
    """Returns a learning rate, and how far gates went with it, over the seeds."""
    if found is None:
        return '', ''
    middle, std = mean_and_std(found['moved'].values())
    return f'{found["rate"]:g}', f'{middle:.2g}' + ('' if std is None else f' ± {std:.1g}')


def claims(found: Sequence[dict]) -> str:
    """Returns the table that says which claims hold, and the notes to it."""
    rows = []
    for claim in found:
        counts = [sum(c['verdict'] == verdict for c in claim['comparisons']) for verdict in (HOLDS, NOISE, FAILS)]
        rows.append([claim['text'], claim['source'], *(
            f'{count} of {len(claim["comparisons"])}' if count else '' for count in counts)])
    compared = sum(len(claim['comparisons']) for claim in found)
    return (f'{markdown_table(["The paper says", "Where", "Holds", "Within the noise", "Does not hold"], rows, 2)}\n\n'
            'Claims are about MAE and MoCo v3 (those about hard gates and Figure 7: about MAE), single-scale. MoCo v3 '
            'on breeds is left out of the comparison with VPT-deep, because the paper calls the two comparable there. '
            f'For the best later block, p is multiplied by the number of later blocks. {chance(compared)}')


def comparisons(found: Sequence[dict]) -> str:
    """Returns each comparison behind the claims."""
    return markdown_table(['Claim', 'On', 'Verdict', 'Difference', 'p'], (
        [claim['text'], c['where'], c['verdict'], f'{c["difference"]:+.2f}', f'{c["p"]:.3f}']
        for claim in found for c in claim['comparisons']), 3)


def rates(results: dict) -> str:
    """Returns what the search for learning rates gave."""
    about, alone = results['about'], [each for each in results['rates'] if each['backbone'] is None]
    others = [each for each in results['rates'] if each['backbone'] is not None]
    return '\n\n'.join([rates_of('the head, alone', 'head', about['heads'], alone),
                        rates_of('what is trained in the ViT', 'backbone', about['rates'], others)])


def rates_of(what: str, chosen: str, tried: Sequence[float], found: Sequence[dict]) -> str:
    """Returns a part of the search; the chosen learning rate is bold."""
    rows = [[*(title(each[key]) for key in ('task', 'vit', 'method')), *(
        number_tried(each['validation'][f'{rate:g}'], each[chosen] == rate) for rate in tried)] for each in found]
    return (f'Of {what}; the result on the validation images, the chosen one bold:\n\n'
            f'{markdown_table(["Task", "SSL", "Method", *(f"{rate:g}" for rate in tried)], rows, 3)}')


def as_csv(results: dict) -> str:
    """Returns a line of CSV for each number: its table, row, column, seed and value."""
    seeds, search = results['about']['seeds'], results['about']['search_seed']
    lines = [[name, ' '.join(row['name']), column, seed, value] for name, table in results['tables'].items()
             for row in table['rows'] for column, values in row['values'].items() for seed, value in values.items()]
    lines += [['furthest gate', each['gates'], each['task'], seed, value] for each in results['moved']
              for seed, value in each['moved'].items()]
    lines += [['selection ratio', name, f'block {block}', seed, value]
              for name, ratios in results['selection_ratios'].items() for seed, ratio in zip(seeds, ratios)
              for block, value in enumerate(ratio, 1)]
    lines += [['search', f'{each["task"]} {each["vit"]} {each["method"]}', rate, search, value]
              for each in results['rates'] for rate, value in each['validation'].items() if value is not None]
    return to_csv([['table', 'row', 'column', 'seed', 'value'], *lines])


def page_part(results: dict) -> str:
    """Returns the part of the page about the miniature that is made from the results."""
    tables, seeds = results['tables'], len(results['about']['seeds'])
    folder = f'{PUBLISHED.relative_to(PAGE.parent).as_posix()}/'
    return '\n\n'.join([
        '### Claims of the paper', claims(results['claims']),
        *(f'### {tables[name]["title"]}\n\n{BOLD}\n\n{by_method(tables[name], results["parameters"], seeds)}\n\n'
          f'{picture(results, name, folder)}' for name in MAIN),
        f'### {tables["gates"]["title"]}\n\n{gates(results)}',
        f'### How it was measured\n\n{conditions(results)}'])


def publish(results: dict, folder: Path = PUBLISHED, page: Path = PAGE) -> None:
    """Writes the results into the documentation, and their part of the page about them.

    Args:
        results: All results of ``tools/replicate.py``.
        folder: Where results.md, .csv, .json and the figures go.
        page: A Markdown file that has the lines ``BEGIN`` and ``END``; what is between them is replaced.

    Raises:
        SystemExit: the results are not of the full preset, or the page has no place for them.
    """
    if results['about']['preset'] != 'full':
        raise SystemExit('only the results of the full preset can be published')
    text = put_between(page, BEGIN, END, page_part(results))
    write(results, folder)
    page.write_text(text, encoding='utf-8')

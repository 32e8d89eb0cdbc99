"""The results as people read them: Markdown, CSV, figures, and a page of the documentation about all sets."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from ...analysis.figures import write_figure
from ...analysis.series import draw_lines
from ...recipes.methods import METHODS
from ...recipes.titles import title
from ...resources import CLONE
from ...wording import listed, markdown_table
from ..suite.tables import to_csv
from ..written import BOLD, cell, number_tried, plain, points, put_between
from .plan import PAPER, PRIOR, SGD_HEAD
from .sets import SETS
from .verdicts import BETTER, NOISE, SETS_NEEDED, WORSE, GateVerdict, crossings, judge_gates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = CLONE / 'docs/photographs'
PAGE = CLONE / 'docs/photographs.md'
BEGIN, END = '<!-- photographs: made by tools/study.py -->', '<!-- end of photographs -->'
LINES = ('start_blocks', 'prompt_counts')  # tables that are drawn
# Of others, to measure against; by set, in percent of the test images.
AIMS = {'camvid': 66.9, 'flowers17': 96., 'dtd10': 80.}
AIM_NOTE = ('66.9 is the mIoU of FC-DenseNet103 on CamVid at 480 x 360 (arXiv 1611.09326, Table 3); 96 and 80 are '
            'goals that were set before anything was measured.')


def write(results: dict, folder: Path) -> str:
    """Writes results.md, .csv, .json and the figures, and returns what is in the first."""
    folder.mkdir(parents=True, exist_ok=True)
    said = markdown(results)
    for suffix, content in (('md', said), ('csv', as_csv(results)), ('json', json.dumps(results, indent=1) + '\n')):
        (folder / f'results.{suffix}').write_text(content, encoding='utf-8')
    for name, figure in figures(results):
        write_figure(figure, folder / f'{name}.png')
    return said


def shown(results: dict) -> tuple[str, dict]:
    """Returns which images the tables are of, and these tables: of the test images as soon as there are numbers."""
    which = 'test' if is_measured(results['test']['methods']) else 'validation'
    return which, results[which]


def is_measured(table: dict | None) -> bool:
    """Returns whether a table has numbers."""
    return bool(table) and any(row['values'] for row in table['rows'])


def figures(results: dict) -> Iterator[tuple[str, 'Figure']]:
    """Yields the figures for which there are numbers, with their names."""
    which, tables = shown(results)
    for name in LINES:
        drawn = points(tables[name]) if name in tables else []
        if drawn:
            yield name, draw_lines(drawn, tables[name]['title'], tables[name]['x'],
                                   f'{unit(results)} ({which} images)', name == 'prompt_counts')


def unit(results: dict) -> str:
    """Returns what is measured."""
    return 'mIoU (%)' if results['about']['score'] == 'mIoU' else 'accuracy (%)'


def markdown(results: dict) -> str:
    """Returns all results of a set as a page of Markdown."""
    _, tables = shown(results)
    parts = [f'# {SETS[results["about"]["set"]].title}: all results', conditions(results)]
    for name, table in tables.items():
        if is_measured(table):
            picture = f'![{table["title"]}]({name}.png)' if name in LINES else ''
            parts += [f'## {table["title"]}', table_of(results, name), picture]
    parts += ['## Learning rates', rates(results)]
    return '\n\n'.join(part for part in parts if part) + '\n'


def table_of(results: dict, name: str) -> str:
    """Returns a table in Markdown, with what it needs to be understood."""
    which, tables = shown(results)
    seeds, said = len(results['about']['seeds']), f'{unit(results)} on {which} images.'
    if name == 'methods':
        return f'{said} {BOLD}\n\n{by_method([results])}'
    notes = dict(
        few_labels='Of the training images each seed draws its own part. Learning rates and iterations are those with '
                   f'all of them.\n\n{crossing_sentences(tables[name])}',
        gate_variants=gate_note(),
        start_blocks='Learning rates are those of prompts that enter at block 1.',
        prompt_counts=f'Learning rates are those of {results["about"]["prompts"]} prompts.')
    return '\n\n'.join(filter(None, [said, plain(tables[name], seeds), notes.get(name, '')]))


def gate_note() -> str:
    """Says what the table of gates is about."""
    return ('The prior is where a gate starts, in gamma. SGD has the paper\'s learning rate, and the head '
            f'{SGD_HEAD:g}; AdamW has the rate that was chosen for Gated Prompt Tuning with the prior {PRIOR:g}.')


def conditions(results: dict) -> str:
    """Returns what was measured, with what, and how."""
    about = results['about']
    machine = '; '.join(', '.join(about[key]) for key in ('device', 'versions') if about[key])
    failed = f', {about["failed"]} failed' if about['failed'] else ''
    images = '/'.join(f'{number:,}' for number in about['images'].values())
    parts = [
        f'`{about["command"]}` with {about["vit"]["title"]} (SHA-256 {str(about["vit"]["sha256"])[:12]}...): '
        f'{about["finished"]} of {about["runs"]} trainings finished{failed}, {about["hours"]} hours if one after the '
        f'other. {machine}; python {", ".join(about["python"])}; commit {", ".join(about["commit"])}.',
        f'Numbers are the mean ± standard deviation over the seeds {listed(about["seeds"])}, in percent. All methods '
        f'have {about["iterations"]} iterations of {about["batch"]} images at {about["size"]} pixels (training, '
        f'validation and test images: {images}), AdamW, a tenth of the iterations to warm up, a cosine to 0, and '
        f'{about["prompts"]} prompts in all where there are prompts. Gates start at a prior of {PRIOR:g}, hard gates '
        f'at 0. Learning rates were chosen on the validation images with seed {about["search_seed"]}: that of the head '
        f'with the head alone ({listed([f"{rate:g}" for rate in about["heads"]])}), then for each method that of what '
        f'it trains in the ViT, from one grid ({listed([f"{rate:g}" for rate in about["rates"]], 9)}), of which every '
        'other one was tried and then the two beside the best.', edges(results), seen(about)]
    if about['preset'] == 'quick':
        parts.append('**The quick preset shows that every step works. Its models have learnt nothing.**')
    return '\n\n'.join(parts)


def seen(about: dict) -> str:
    """Says whether the test images have been looked at."""
    if about['looked']:
        return f'Test images were looked at once, after all choices: {about["looked"]["time"]}.'
    return ('Test images have not been looked at yet: numbers are of the validation images, on which learning rates '
            'were chosen.')


def edges(results: dict) -> str:
    """Says which learning rates are at an end of the grid, beyond which a better one may lie."""
    grid = results['about']['rates']
    ends = [f'{title(name)} ({rates["backbone"]:g})' for name, rates in results['about']['chosen'].items()
            if rates['backbone'] in (grid[0], grid[-1])]
    return f'At an end of the grid: {", ".join(ends) or "none"}.'


def by_method(found: Sequence[dict]) -> str:
    """Returns a row for each method, a column for each set; the best method that adapts is bold.

    Args:
        found: The results of each set.
    """
    tables = [(each, shown(each)[1]['methods']) for each in found]
    rows = {row['name'][0]: None for _, table in tables for row in table['rows']}
    cells: list[dict[str, str]] = []
    for results, table in tables:
        values = {row['name'][0]: next(iter(row['values'].values()), {}) for row in table['rows']}
        means = {name: mean(seeds.values()) for name, seeds in values.items() if seeds and METHODS[name].adapts}
        best = max(means, key=means.get, default=None)
        number = len(results['about']['seeds'])
        cells.append({name: cell(seeds, number, name == best) for name, seeds in values.items()})
    lines = [[title(name), adapting(found, name), *(column.get(name, '') for column in cells), seconds(found, name)]
             for name in rows]
    titles = [f'{SETS[each["about"]["set"]].title}, {unit(each)}' for each in found]
    return markdown_table(['Method', 'Trained in the ViT', *titles, 'Seconds of an iteration'], lines)


def adapting(found: Sequence[dict], method: str) -> str:
    """Returns how many parameters a method trains in the ViT, and their share of the model, where it is known."""
    for results in found:
        if counted := results['parameters'].get(method):
            number = counted['adapting']
            return f'{number:,} ({100 * number / counted["total"]:.2g} %)' if number else '0'
    return ''


def seconds(found: Sequence[dict], method: str) -> str:
    """Returns the seconds of an iteration on each set, where they were measured."""
    return ', '.join(f'{results["timings"][method]["iteration"]:.2f}' for results in found
                     if method in results['timings'])


def crossing_sentences(table: dict) -> str:
    """Says where methods cross as labels become fewer."""
    words = {BETTER: 'ahead', WORSE: 'behind', NOISE: 'level'}
    lines = []
    for each in crossings(table):
        said = ', '.join(f'{words[each.verdicts[column]]} at {column} ({difference:+.1f})'
                         for column, difference in each.differences.items())
        where = f'their means cross near {each.at:.0f} %' if each.at else 'their means do not cross'
        lines.append(f'- {title(each.one)} against {title(each.other)}: {said}; {where}.')
    return '\n'.join(lines)


def rates(results: dict) -> str:
    """Returns what each learning rate gave on the validation images."""
    about, rows = results['about'], []
    for name, values in results['rates'].items():
        chosen = about['chosen'].get(name, {})
        best = chosen.get('backbone') or chosen.get('head')
        rows.append([title(name), ', '.join(f'{rate}: {number_tried(value, best is not None and float(rate) == best)}'
                                            for rate, value in values.items())])
    return f'On validation images, the chosen one bold.\n\n{markdown_table(["What", "By learning rate"], rows, 2)}'


def as_csv(results: dict) -> str:
    """Returns a line of CSV for each number: its table, row, column, images, seed and value."""
    lines = [[name, ' '.join(row['name']), column, which, seed, value] for which in ('validation', 'test')
             for name, table in results[which].items() for row in table['rows']
             for column, values in row['values'].items() for seed, value in values.items()]
    lines += [['search', name, rate, 'validation', results['about']['search_seed'], value]
              for name, values in results['rates'].items() for rate, value in values.items() if value is not None]
    return to_csv([['table', 'row', 'column', 'images', 'seed', 'value'], *lines])


def page_part(found: Sequence[dict]) -> str:
    """Returns the part of the page about the study that is made from the results.

    Args:
        found: The results of each set.
    """
    if not found:
        return 'Nothing has been measured yet.'
    parts = ['### All methods', BOLD, by_method(found), aims(found), '### Few labels']
    for results in found:
        parts += [f'#### {SETS[results["about"]["set"]].title}', table_of(results, 'few_labels')]
    parts += ['### The gates', gates(found)]
    for name, heading in (('start_blocks', 'Where prompts enter'), ('prompt_counts', 'How many prompts'),
                          ('other_head', 'Another head')):
        having = [each for each in found if is_measured(shown(each)[1].get(name))]
        parts += [f'### {heading}'] * bool(having)
        for each in having:
            parts += [table_of(each, name), picture(each, name)]
    parts += ['### How it was measured']
    parts += [f'**{SETS[each["about"]["set"]].title}.** {conditions(each)}' for each in found]
    return '\n\n'.join(filter(None, parts))


def picture(results: dict, name: str) -> str:
    """Returns the Markdown of a published figure, if it is one."""
    file = f'{PUBLISHED.name}/{results["about"]["set"]}_{name}.png'
    return f'![{shown(results)[1][name]["title"]}]({file})' if name in LINES else ''


def aims(found: Sequence[dict]) -> str:
    """Returns what larger images and longer trainings have reached, beside the aims."""
    lines = []
    for results in found:
        _, tables = shown(results)
        for row in tables.get('aim', dict(rows=[]))['rows']:
            for column, values in row['values'].items():
                head, method = row['name']
                lines.append([column, f'{title(method)}, head {head}', cell(values, len(results['about']['seeds'])),
                              f'{AIMS[results["about"]["set"]]:g}'])
    if not lines:
        return ''
    return f'{markdown_table(["Set", "What", "Reached", "Aim"], lines, 2)}\n\n{AIM_NOTE}'


def gates(found: Sequence[dict]) -> str:
    """Returns what priors, optimizers and the training of gates did on all sets, and the verdict."""
    tables = {each['about']['set']: shown(each)[1]['gate_variants'] for each in found}
    judged = judge_gates(tables)
    seeds = {each['about']['set']: len(each['about']['seeds']) for each in found}
    words = {BETTER: ' (better)', WORSE: ' (worse)'}
    values = {name: {row['name'][0]: next(iter(row['values'].values()), {}) for row in table['rows']}
              for name, table in tables.items()}
    settings = dict.fromkeys(setting for rows in values.values() for setting in rows)
    beside = {(setting, name): words.get(found, '') for setting, by_set in judged.verdicts.items()
              for name, found in by_set.items()}
    lines = [[setting, *(cell(rows.get(setting), seeds[name]) + beside.get((setting, name), '')
                         for name, rows in values.items())] for setting in settings]
    table = markdown_table(['Gates', *(SETS[name].title for name in tables)], lines)
    return '\n\n'.join([gate_note(), table, verdict_sentence(judged)])


def verdict_sentence(judged: GateVerdict) -> str:
    """Says whether a setting of gates is better than the paper's."""
    rule = ('*Better* and *worse* are beside the paper\'s setting, by more than twice the larger standard deviation '
            'over seeds.')
    if len(judged.sets) < SETS_NEEDED:
        return f'{rule} On {len(judged.sets)} sets there are numbers yet, and {SETS_NEEDED} are needed for a verdict.'
    if not judged.offered:
        return f'{rule} No setting is better than the paper\'s ({PAPER}) on {SETS_NEEDED} of {len(judged.sets)} sets.'
    return (f'{rule} Better than the paper\'s ({PAPER}) on {SETS_NEEDED} or more of {len(judged.sets)} sets: '
            f'{"; ".join(judged.offered)}.')


def publish(results: dict, folder: Path = PUBLISHED, page: Path = PAGE) -> None:
    """Writes the results of a set into the documentation, and their part of the page about all sets.

    Args:
        results: All results of a set.
        folder: Where SET.json and the figures go; the results of other sets are there.
        page: A Markdown file that has the lines ``BEGIN`` and ``END``; what is between them is replaced.

    Raises:
        SystemExit: the results are not of the full preset, or the page has no place for them.
    """
    if results['about']['preset'] != 'full':
        raise SystemExit('only the results of the full preset can be published')
    put_between(page, BEGIN, END, '')
    folder.mkdir(parents=True, exist_ok=True)
    name = results['about']['set']
    (folder / f'{name}.json').write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    for figure_name, figure in figures(results):
        write_figure(figure, folder / f'{name}_{figure_name}.png')
    page.write_text(put_between(page, BEGIN, END, page_part(published(folder))), encoding='utf-8')


def published(folder: Path = PUBLISHED) -> list[dict]:
    """Returns the published results, by set."""
    files = [folder / f'{name}.json' for name in SETS]
    return [json.loads(file.read_text(encoding='utf-8')) for file in files if file.is_file()]

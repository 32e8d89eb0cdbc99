"""The page of the documentation about all sets, made from the published results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...analysis.figures import write_figure
from ...analysis.series import mean_and_std
from ...recipes.titles import title
from ...resources import CLONE
from ...wording import markdown_table
from ..written import BOLD, cell, put_between
from .figures import LINES, figures, is_measured, selection_figure, shown
from .plan import PAPER
from .report import by_method, conditions, gate_note, table_of
from .sets import SETS
from .verdicts import BETTER, SETS_NEEDED, WORSE, GateVerdict, judge_gates

PUBLISHED = CLONE / 'docs/photographs'
PAGE = CLONE / 'docs/photographs.md'
BEGIN, END = '<!-- photographs: made by tools/study.py -->', '<!-- end of photographs -->'
# Of others, to measure against; by set, in percent of the test images.
AIMS = {'camvid': 66.9, 'flowers17': 96., 'dtd10': 80.}
AIM_NOTE = ('66.9 is the mIoU of FC-DenseNet103 on CamVid at 480 x 360 (arXiv 1611.09326, Table 3); 96 and 80 are '
            'goals that were set before anything was measured.')


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
    drawn = f'![What the gates select]({PUBLISHED.name}/selection.png)' * any(
        each['selection_ratios'] for each in found)
    return '\n\n'.join(filter(None, [gate_note(), table, verdict_sentence(judged), furthest(found), drawn]))


def furthest(found: Sequence[dict]) -> str:
    """Returns how far the furthest gate went from its prior in each setting, on all sets."""
    settings = dict.fromkeys(setting for each in found for setting in each['moved'])
    lines = [[setting, *(moved_text(each['moved'].get(setting)) for each in found)] for setting in settings]
    if not lines:
        return ''
    table = markdown_table(['Furthest gate', *(SETS[each['about']['set']].title for each in found)], lines)
    return f'How far the furthest gate went from its prior, in gamma:\n\n{table}'


def moved_text(values: Mapping[str, float] | None) -> str:
    """Returns how far gates went, over the seeds."""
    middle, std = mean_and_std((values or {}).values())
    return '' if middle is None else f'{middle:.2g}' + ('' if std is None else f' ± {std:.1g}')


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
    if figure := selection_figure(published(folder)):
        write_figure(figure, folder / 'selection.png')
    page.write_text(put_between(page, BEGIN, END, page_part(published(folder))), encoding='utf-8')


def published(folder: Path = PUBLISHED) -> list[dict]:
    """Returns the published results, by set."""
    files = [folder / f'{name}.json' for name in SETS]
    return [json.loads(file.read_text(encoding='utf-8')) for file in files if file.is_file()]

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
from .choices import AIM_SCALE
from .figures import figures, is_drawn, is_measured, selection_figure, shown, unit
from .plan import GATES, LOWEST
from .report import adapting, by_method, conditions, gate_note, seconds, table_of
from .sets import SETS
from .verdicts import BETTER, SETS_NEEDED, WORSE, GateVerdict, judge_gates

PUBLISHED = CLONE / 'docs/photographs'
PAGE = CLONE / 'docs/photographs.md'
BEGIN, END = '<!-- photographs: made by tools/study.py -->', '<!-- end of photographs -->'
# What is to be reached on the test images of each set, in percent.
AIMS = {'camvid': 66.9, 'flowers17': 96., 'dtd10': 80.}
AIM_NOTE = ('66.9 is the mIoU of FC-DenseNet103 on CamVid at 480 x 360 (arXiv 1611.09326, Table 3); 96 and 80 are '
            'goals that were set before anything was measured.')


def page_part(found: Sequence[dict]) -> str:
    """Returns the part of the page about the study that is made from the results, with blanks where there are none.

    Args:
        found: The results of sets.
    """
    by_set = dict.fromkeys(SETS) | {results['about']['set']: results for results in found}
    parts = ['### All methods', BOLD, by_method(by_set), aims(by_set), '### Few labels']
    parts += [few_labels(name, results) for name, results in by_set.items()]
    parts += ['### The gates', gates(by_set)]
    for name, heading in (('start_blocks', 'Where prompts enter'), ('prompt_counts', 'How many prompts'),
                          ('other_head', 'Another head'), ('classes', 'IoU by class')):
        having = [each for each in found if is_measured(each['validation'].get(name))]
        parts += [f'### {heading}', *(text for each in having for text in (table_of(each, name), picture(each, name)))]
        parts += [] if having else ['Not measured yet.']
    parts += ['### How it was measured', *([] if found else ['Nothing has been measured yet.'])]
    parts += [f'**{SETS[each["about"]["set"]].title}.** {conditions(each)}' for each in found]
    return '\n\n'.join(filter(None, parts))


def few_labels(name: str, results: dict | None) -> str:
    """Returns the results of a set with fewer labels."""
    measured = results and is_measured(results['validation'].get('few_labels'))
    return f'#### {SETS[name].title}\n\n{table_of(results, "few_labels") if measured else "Not measured yet."}'


def picture(results: dict, name: str) -> str:
    """Returns the Markdown of a published figure, if it is one."""
    file = f'{PUBLISHED.name}/{results["about"]["set"]}_{name}.png'
    table = shown(results, name)[1]
    return f'![{table["title"]}]({file})' if is_drawn(name, table) else ''


def aims(by_set: Mapping[str, dict | None]) -> str:
    """Returns what larger images and longer trainings have reached and cost, beside the aims."""
    lines = []
    for name, results in by_set.items():
        which, table = shown(results, 'aim') if results else ('', dict(rows=[]))
        rows = [(*row['name'], next(iter(row['values'].values()))) for row in table['rows'] if row['values']]
        lines += [[SETS[name].title, f'{title(method)}, {head} ({which} images)', *aim_costs(results, method),
                   cell(values, len(results['about']['seeds'])), f'{AIMS[name]:g}'] for head, method, values in rows]
        lines += [] if rows else [[SETS[name].title, '', '', '', '', '', f'{AIMS[name]:g}']]
    table = markdown_table(['Larger images, and longer', 'What', 'Iterations', 'Trained in the ViT',
                            'Seconds of an iteration', 'Reached', 'Aim'], lines, 2)
    return f'{table}\n\n{AIM_NOTE}'


def aim_costs(results: dict, method: str) -> list[str]:
    """Returns how long the training with larger images is, how much of the ViT it trains, and how long it takes."""
    about, ending = results['about'], f'_x{AIM_SCALE}'
    name = next((name for name in results['parameters'] if name.startswith(method) and name.endswith(ending)), '')
    return [f'{about["longer"]} of {about["batch"]} images at {AIM_SCALE * about["size"]} pixels',
            adapting([results], name), seconds([results], name)]


def gates(by_set: Mapping[str, dict | None]) -> str:
    """Returns what priors, optimizers and the training of gates did on all sets, and the verdict."""
    found = {name: shown(results, 'gate_variants') for name, results in by_set.items() if results}
    tables = {name: table for name, (_, table) in found.items()}
    which = 'test' if any(images == 'test' for images, _ in found.values()) else 'validation'
    seeds = {name: len(results['about']['seeds']) if results else 0 for name, results in by_set.items()}
    judged = judge_gates({name: table for name, (images, table) in found.items() if images == which},
                         max(seeds.values()))
    words = {BETTER: ' (better)', WORSE: ' (worse)'}
    values = {name: {row['name'][0]: next(iter(row['values'].values()), {}) for row in table['rows']}
              for name, table in tables.items()}
    beside = {(setting, name): words.get(said, '') for setting, found_on in judged.verdicts.items()
              for name, said in found_on.items()}
    lines = [[setting, *(cell(values.get(name, {}).get(setting), number) + beside.get((setting, name), '')
                         for name, number in seeds.items())] for setting in GATES]
    header = [SETS[name].title + (f': {unit(name)}, {found[name][0]} images' if name in found else '')
              for name in by_set]
    table = markdown_table(['Gates', *header], lines)
    known = [results for results in by_set.values() if results]
    drawn = f'![What the gates select]({PUBLISHED.name}/selection.png)' * any(
        each['selection_ratios'] for each in known)
    return '\n\n'.join(filter(None, [gate_note(), table, verdict_sentence(judged, which), furthest(known), drawn]))


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
    return '' if middle is None else f'{middle:.2g}' + ('' if std is None else f' ± {std:.2g}')


def verdict_sentence(judged: GateVerdict, which: str) -> str:
    """Says whether another prior is better than the lowest one, and trained gates than held ones.

    Args:
        judged: How the settings compare.
        which: The images that the numbers are of, 'validation' or 'test'.
    """
    rule = (f'*Better* and *worse* are by more than twice the larger standard deviation over seeds, on {which} images, '
            f'within one optimizer: trained gates beside the prior {LOWEST:g}, and gates that are not trained beside '
            'trained ones of the same prior.')
    if len(judged.sets) < SETS_NEEDED:
        return f'{rule} On {len(judged.sets)} sets there are numbers yet, and {SETS_NEEDED} are needed for a verdict.'
    on = f'on {SETS_NEEDED} or more of {len(judged.sets)} sets'
    return (f'{rule} A prior that is better than {LOWEST:g} {on}: {"; ".join(judged.priors) or "none"}. Training the '
            f'gates is better than holding them {on}: {"; ".join(judged.trained) or "nowhere"}.')


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

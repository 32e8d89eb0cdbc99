"""The results of a set as people read them: Markdown, CSV and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...recipes.titles import title
from ...wording import listed, markdown_table
from ..gates import PRIOR, SGD_HEAD
from ..suite.tables import to_csv
from ..written import BOLD, best_adapting, cell, number_tried, plain, write_results
from .figures import figures, is_drawn, is_measured, shown, unit
from .plan import COMPARED
from .sets import SETS
from .verdicts import BETTER, NOISE, WORSE, crossings


def write(results: dict, folder: Path) -> str:
    """Writes results.md, .csv, .json and the figures, and returns what is in the first."""
    return write_results(results, folder, markdown(results), as_csv(results), figures(results))


def markdown(results: dict) -> str:
    """Returns all results of a set as a page of Markdown."""
    parts = [f'# {SETS[results["about"]["set"]].title}: all results', conditions(results)]
    for name, table in results['validation'].items():
        if is_measured(table):
            picture = f'![{table["title"]}]({name}.png)' if is_drawn(name, table) else ''
            parts += [f'## {table["title"]}', table_of(results, name), picture]
    parts += ['## Learning rates', rates(results)]
    return '\n\n'.join(part for part in parts if part) + '\n'


def table_of(results: dict, name: str) -> str:
    """Returns a table in Markdown, with what it needs to be understood."""
    which, table = shown(results, name)
    said = f'Numbers are {unit(results["about"]["set"])} on {which} images.'
    if name == 'methods':
        return f'{BOLD}\n\n{by_method({results["about"]["set"]: results})}'
    seeds = len(results['about']['seeds'])
    notes = dict(
        few_labels='Each seed draws its own part of the training images. Learning rates and iterations are those with '
                   f'all of them.\n\n{crossing_sentences(table, seeds)}' if name == 'few_labels' else '',
        gate_variants=gate_note(),
        start_blocks='Learning rates are those of prompts that enter at block 1.',
        prompt_counts=f'Learning rates are those of {results["about"]["prompts"]} prompts.')
    return '\n\n'.join(filter(None, [said, plain(table, seeds), notes.get(name, '')]))


def gate_note() -> str:
    """Says what the table of gates is about."""
    return ('The prior is where a gate starts, in gamma. SGD has a learning rate of the paper, and the head '
            f'{SGD_HEAD:g}: neither was searched, and the paper\'s batches are larger. AdamW has the rate that was '
            f'searched for Gated Prompt Tuning with the prior {PRIOR:g}. So only rows of one optimizer say something '
            'about the gates; the two optimizers differ by their tuning too.')


def conditions(results: dict) -> str:
    """Returns what was measured, with what, and how."""
    about = results['about']
    machine = '; '.join(', '.join(about[key]) for key in ('device', 'versions') if about[key])
    failed = f', {about["failed"]} failed' if about['failed'] else ''
    images = '/'.join(f'{number:,}' for number in about['images'].values())
    known_by = f' (SHA-256 {about["vit"]["sha256"][:12]}...)' if about['vit']['sha256'] else ''
    parts = [
        f'`{about["command"]}` with {about["vit"]["title"]}{known_by}: '
        f'{about["finished"]} of {about["runs"]} trainings finished{failed}, {about["hours"]} hours if one after the '
        f'other. {machine}; python {", ".join(about["python"])}; commit {", ".join(about["commit"])}.',
        f'Numbers are the mean ± standard deviation over the seeds {listed(about["seeds"])}, in percent. All methods '
        f'have {about["iterations"]} iterations of {about["batch"]} images at {about["size"]} pixels (training, '
        f'validation and test images: {images}), AdamW, a tenth of the iterations to warm up, a cosine to 0, and '
        f'{about["prompts"]} prompts in all where there are prompts. Gates start at a prior of {PRIOR:g}, hard gates '
        f'at 0. Learning rates were chosen on the validation images with seed {about["search_seed"]}, in trainings '
        f'of {about["searching"]} iterations: that of the head with the head alone '
        f'({listed([f"{rate:g}" for rate in about["heads"]])}), then for each method that of what it trains in the '
        f'ViT, from one grid ({listed([f"{rate:g}" for rate in about["rates"]], 9)}), of which every '
        'other one was tried and then the two beside the best. Of equal ones, the one that was tried first is '
        'taken.', edges(results), seen(about)]
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
    grid, heads = results['about']['rates'], results['about']['heads']
    ends = [f'{title(name)} ({rates["backbone"]:g})' for name, rates in results['about']['chosen'].items()
            if rates['backbone'] in (grid[0], grid[-1])]
    head = results['about']['chosen'].get('linear', {}).get('head')
    ends += [f'the head ({head:g})'] if head in (heads[0], heads[-1]) else []
    return f'At an end of the grid: {", ".join(ends) or "none"}.'


def by_method(found: Mapping[str, dict | None]) -> str:
    """Returns a row for each method, a column for each set; the best method that adapts is bold.

    Args:
        found: The results of each set, None where there are none yet.
    """
    tables = {name: shown(results, 'methods') for name, results in found.items() if results}
    rows = dict.fromkeys(row['name'][0] for _, table in tables.values() for row in table['rows']) or COMPARED
    columns: list[dict[str, str]] = []
    for name, results in found.items():
        values = {row['name'][0]: next(iter(row['values'].values()), {})
                  for row in (tables[name][1]['rows'] if results else ())}
        number = len(results['about']['seeds']) if results else 0
        best = best_adapting(values, number)
        columns.append({method: cell(seeds, number, method == best)
                        for method, seeds in values.items()})
    header = [f'{SETS[name].title}: {unit(name)}' + (f', {tables[name][0]} images' if name in tables else '')
              for name in found]
    known = [results for results in found.values() if results]
    lines = [[title(method), adapting(known, method), *(column.get(method, '') for column in columns),
              seconds(known, method)] for method in rows]
    return markdown_table(['Method', 'Trained in the ViT', *header, 'Seconds of an iteration, on each set'], lines)


def adapting(found: Sequence[dict], method: str) -> str:
    """Returns how many parameters a method trains in the ViT, and their share of the model, where it is known."""
    for results in found:
        if counted := results['parameters'].get(method):
            number = counted['adapting']
            share = 100 * number / counted['total']
            return f'{number:,} ({share:.{"2g" if share < 10 else "0f"}} %)' if number else '0'
    return ''


def seconds(found: Sequence[dict], method: str) -> str:
    """Returns the seconds of an iteration on each set, where they were measured."""
    return ', '.join(f'{results["timings"][method]["iteration"]:.2f}' for results in found
                     if method in results['timings'])


def crossing_sentences(table: dict, seeds: int) -> str:
    """Says where methods cross as labels become fewer, by numbers that have all seeds."""
    words = {BETTER: 'ahead', WORSE: 'behind', NOISE: 'level'}
    lines = []
    for each in crossings(table, seeds):
        said = ', '.join(f'{words[each.verdicts[column]]} at {column} ({difference:+.1f})'
                         for column, difference in each.differences.items())
        if set(each.verdicts.values()) == {NOISE}:
            where = 'no difference is beyond the noise'
        elif each.at:
            where = f'their means cross near {" and ".join(f"{place:.0f} %" for place in each.at)}'
        else:
            where = 'their means do not cross'
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

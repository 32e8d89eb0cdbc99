"""The model card: what people read of a model on the hub, with the YAML that the hub reads."""

from collections.abc import Mapping

import yaml
from torch import Tensor

from ..checkpoints import address_of
from ..checkpoints.hub import ADAPTER, HF
from ..recipes.methods import METHODS, method_of
from ..wording import bytes_in_words, markdown_table

# The hub's names: pipeline tag, and the metric's type.
TAGS = dict(segmentation='image-segmentation', classification='image-classification')
OUTPUT = dict(segmentation=('--out', 'predictions'), classification=('--json', 'predictions.json'))  # of predict
METRICS = {'mIoU': 'mean_iou', 'accuracy': 'accuracy', 'accuracy/top1': 'accuracy'}
KEPT = '<!-- Written by mmseg-gpt push. Remove this line, and the next push keeps the card as you have changed it. -->'


def card(name: str, record: dict, state: Mapping[str, Tensor], size: int, licence: str | None = None) -> str:
    """Returns the card of a model as Markdown.

    Args:
        name: Owner and name on the hub.
        record: The record of its adapter file.
        state: The weights in the file.
        size: Its bytes.
        licence: The licence's identifier on the hub; None if nothing is said.
    """
    short = name.rpartition('/')[2]
    return '\n'.join([
        '---', yaml.safe_dump(front_matter(short, record, licence), sort_keys=False, allow_unicode=True) + '---', KEPT,
        '', f'# {short}', '', *summary(record, state, size), '', '## Use it', '', *usage(name, short, record), '',
        '## What it needs', '', *needs(record), '', '## Results', '', *results_table(record), '', '## Classes', '',
        *classes(record), '', '## Licence', '', *licences(record, licence), ''])


def front_matter(short: str, record: dict, licence: str | None) -> dict:
    """Returns what the hub reads of a card."""
    found = dict(library_name='mmseg_gpt', pipeline_tag=TAGS[record['task']], license=licence or 'unknown',
                 tags=['mmseg_gpt', 'openmmlab', 'vision-transformer', 'adapter', record['task']])
    results = record['results']
    if results.get('scores'):
        data = results.get('measured_on') or 'own images'
        metrics = [dict(type=METRICS.get(metric, 'custom'), name=metric, value=score)
                   for metric, score in results['scores'].items()]
        found['model-index'] = [dict(name=short, results=[dict(
            task=dict(type=TAGS[record['task']]), dataset=dict(name=data, type=data), metrics=metrics)])]
    return found


def summary(record: dict, state: Mapping[str, Tensor], size: int) -> list[str]:
    """Returns in two sentences what the model is, and what is in the file."""
    count = len(record['classes'] or ())
    method = method_of(record['config']['model']['backbone'])
    title = METHODS[method].title if method in METHODS else method
    numbers = sum(value.numel() for value in state.values())
    vit = record['vit']
    kept = (f'The ViT is frozen and not in here: `{ADAPTER}` ({bytes_in_words(size)}) has the {numbers:,} numbers '
            'that were trained around it.' if vit else
            f'The ViT was trained, so `{ADAPTER}` ({bytes_in_words(size)}) has all {numbers:,} numbers of the model.')
    classes, file = f' of {count} classes' * bool(count), f' (`{vit["file"]}`)' if vit else ''
    return [f'{record["task"].capitalize()}{classes} by a vision transformer{file}, adapted by {title}. {kept}',
            '', f'Made by {record["made_by"]}. The file holds numbers and settings as JSON; nothing in it is run.']


def usage(name: str, short: str, record: dict) -> list[str]:
    """Returns how the model is used, in Python and on the command line."""
    last = ("labels = model.predict('photo.jpg')  # (height, width): numbers of model.classes"
            if record['task'] == 'segmentation' else "print(model.predict('photo.jpg'))  # its class and score")
    lines = ['With mmseg_gpt and its extra `hub`:', '', '```python', 'from mmseg_gpt.own_data import load',
             f"model = load('{HF}{name}')", last, '```', '', '```', f'mmseg-gpt pull {name}']
    if record['vit']:  # the command line is for tasks that share a ViT
        lines.append(f'mmseg-gpt predict --task {short} {HF}{name} --images photo.jpg '
                     f'{" ".join(OUTPUT[record["task"]])}')
    return [*lines, '```']


def needs(record: dict) -> list[str]:
    """Returns the ViT that a model needs, as a table."""
    vit = record['vit']
    if vit is None:
        return ['Nothing else: the ViT is inside.']
    known = vit['address'] or address_of(vit['file'])
    where = (f'<{known}>' if known and ' ' not in known else known) or 'its author has not said where it can be had'
    return [markdown_table(['the ViT', ''], [
        ['file', f'`{vit["file"]}`'], ['from', where], ['SHA-256', f'`{vit["sha256"]}`'],
        ['SHA-256 of its weights', f'`{vit["weights_sha256"]}`']], left=2), '',
        'It is looked for in `pretrained/`, and fetched if it is one of the released files. Any other is refused.']


def results_table(record: dict) -> list[str]:
    """Returns the scores as tables."""
    results = record['results']
    if not results.get('scores'):
        return ['Nothing was measured, or it was not said.']
    images = f', {results["images"]:,} images' if results.get('images') else ''
    lines = [f'Measured on {results.get("measured_on") or "own images"}{images}; in percent.', '',
             markdown_table(['metric', 'value'], [[name, f'{score:.2f}'] for name, score in results['scores'].items()])]
    if per_class := results.get('per_class'):
        columns = [name for name in per_class[0] if name != 'class']
        rows = [[escaped(row['class']), *(
            '-' if row.get(name) is None else f'{row[name]:.2f}' for name in columns)] for row in per_class]
        lines += ['', markdown_table(['class', *columns], rows)]
    return lines


def classes(record: dict) -> list[str]:
    """Returns the numbers and names of the classes."""
    if not record['classes']:
        return ['Their names were not said.']
    return [', '.join(f'{number} {escaped(name)}' for number, name in enumerate(record['classes']))]


def licences(record: dict, licence: str | None) -> list[str]:
    """Returns which licences hold."""
    own = f'What is in this repository: {licence}.' if licence else (
        'Whoever made this model has not said under which licence others may use it: ask before you do.')
    vit = 'The licence of the ViT holds beside it' if record['vit'] else (
        'It contains a ViT that was trained further, whose licence holds too')
    return [f'{own} {vit}, and so may that of the images it was trained on.']


def escaped(name: str) -> str:
    """Returns a name that stands for itself in Markdown."""
    return ''.join(f'\\{letter}' if letter in '\\`*_[]<>|#~$&' else letter for letter in name)

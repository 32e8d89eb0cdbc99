"""Surveys of datasets as text and as plain numbers."""

import numpy as np
from prettytable import PrettyTable

from .survey import Survey, common_images

MOST = 20  # most problems printed for each split; the JSON file has all


def training_copies(surveys: dict[str, Survey]) -> list[str]:
    """Says which images of other splits are training images too."""
    train = surveys.get('train')
    return sorted(f'{other} is the training image {own}' for found in surveys.values() if train and found is not train
                  for own, other in common_images(train, found))


def as_numbers(surveys: dict[str, Survey]) -> dict:
    """Returns all findings in plain types, for a JSON file."""
    splits = {}
    for split, found in surveys.items():
        classes = [dict(name=name, pixels=int(pixels), images=int(images))
                   for name, pixels, images in zip(found.classes, found.pixels, found.images)]
        splits[split] = dict(images=found.pairs, sizes=sizes(found), ignored_share=found.ignored_share, classes=classes,
                             absent=found.absent, problems=found.problems, notes=found.notes)
    return dict(splits=splits, copies=training_copies(surveys))


def sizes(found: Survey) -> dict[str, list[int]]:
    """Returns the smallest, the median and the largest width and height in pixels; empty without images."""
    if not found.sizes:
        return {}
    return {name: [int(f(side)) for f in (np.min, np.median, np.max)]
            for name, side in zip(('width', 'height'), np.array(found.sizes).T)}


def as_text(split: str, found: Survey) -> str:
    """Describes a split in lines for a terminal."""
    lines = [f'{split}: {found.pairs:,} images, {len(found.classes)} classes']
    lines += [f'  {name}: {low} at least, {middle} in the middle, {high} at most'
              for name, (low, middle, high) in sizes(found).items()]
    if found.ignored_share is not None:
        lines += [f'  ignored pixels: {found.ignored_share:.2%}']
    if found.counts.any():
        lines += [str(class_table(found))]
        lines += [f'  classes that never occur ({len(found.absent)}): {", ".join(found.absent) or "none"}']
    lines += [f'  {note}' for note in found.notes]
    lines += [f'  problems ({len(found.problems)}):' if found.problems else '  no problems']
    lines += [f'  * {problem}' for problem in found.problems[:MOST]]
    if len(found.problems) > MOST:
        lines.append(f'  * and {len(found.problems) - MOST} more, which are in the report')
    return '\n'.join(lines)


def class_table(found: Survey) -> PrettyTable:
    """Makes a table of the classes: labelled pixels, if there are label maps, and images."""
    mapped = found.pixels.any()
    table = PrettyTable(['class', *(['pixels'] if mapped else []), 'share', 'images'], align='r')
    table.align['class'] = 'l'
    shares = found.counts / max(int(found.counts.sum()), 1)
    for name, pixels, share, images in zip(found.classes, found.pixels, shares, found.images):
        table.add_row([name, *([f'{pixels:,}'] if mapped else []), f'{share:.3%}', f'{images:,}'])
    return table

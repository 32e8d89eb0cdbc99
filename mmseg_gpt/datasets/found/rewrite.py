"""Rewriting masks of any kind as 8-bit index PNGs, which is what training reads."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from ...files import names_below, replacing
from ...wording import listed
from ..survey import Progress
from .facts import results_of, size_of, stamp
from .masks import MaskError, read_mask
from .rule import MaskRule
from .types import Pair

SOURCE = 'source'  # the text in a PNG that tells from which state of its source, and by which rule, it was made
IGNORED_COLOUR = (255, 255, 255)


class MaskToWrite(NamedTuple):
    """A mask and where its class numbers go.

    Attributes:
        mask: The file.
        image: The file of its image.
        target: The PNG to write.
    """
    mask: str
    image: str
    target: str


def write_masks(splits: Mapping[str, Sequence[Pair]], rule: MaskRule, folder: Path, workers: int = 1,
                progress: Progress = lambda done, total: done) -> dict[str, Path]:
    """Writes each mask as class numbers 0 to C-1 with 255 for ignored, and a list of pairs for each split.

    Masks that have been written before are kept, unless their source (by size and time of change) or the rule has
    changed since. Sources are never touched.

    Args:
        splits: Pairs of image and mask by split.
        rule: The rule by which they are read.
        folder: The folder to write to: ``masks/SPLIT/NAME.png`` and ``SPLIT.csv`` below it.
        workers: Number of processes.
        progress: Function for a progress bar, as in :func:`~mmseg_gpt.datasets.found.understand.understand_masks`.

    Returns:
        dict: By split, a CSV file with the columns ``image`` (an absolute path) and ``mask`` (relative to ``folder``;
        empty where a pair has none).

    Raises:
        MaskError: a mask changed meanwhile, and the rule no longer fits it.
    """
    folder = Path(folder).absolute()
    rows: dict[str, list[tuple[str, str]]] = {}
    tasks = []
    for split, pairs in splits.items():
        names = names_below([pair.image for pair in pairs])
        rows[split] = []
        for pair in pairs:
            target = f'masks/{split}/{names[str(pair.image)]}.png' if pair.mask else ''
            rows[split].append((str(Path(pair.image).absolute()), target))
            if target:
                tasks.append(MaskToWrite(str(pair.mask), str(pair.image), str(folder / target)))
    write = partial(write_mask, rule.as_json())
    tasks = list(dict.fromkeys(tasks))  # a list of pairs may name one twice
    problems = [problem for problem in progress(results_of(write, tasks, workers), len(tasks)) if problem]
    if problems:
        raise MaskError(f'{len(problems)} masks cannot be written: {listed(problems, 3)}')
    return {split: write_list(folder / f'{split}.csv', own) for split, own in rows.items()}


def write_list(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Writes a list of images and masks, and returns its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, open(unfinished, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([('image', 'mask'), *rows])
    return path


def write_mask(rule: str, task: MaskToWrite) -> str:
    """Writes one mask unless it is there already; runs in a worker.

    Args:
        rule: The rule as JSON.
        task: The mask.

    Returns:
        str: Why it cannot be written; empty if it is.
    """
    source = hashlib.sha256(f'{rule}\n{stamp([task.mask])}'.encode()).hexdigest()
    target = Path(task.target)
    if was_made_of(target, source):
        return ''
    try:
        mask = read_mask(task.mask, size_of(task.image)[0])
    except MaskError as error:
        return str(error)
    try:
        classes = rule_of(rule).apply(mask)
    except MaskError as error:
        return f'{task.mask} {error}'
    image = Image.fromarray(classes)
    palette = np.zeros((256, 3), np.uint8)
    palette[:len(rule_of(rule).palette)] = rule_of(rule).palette
    palette[255] = IGNORED_COLOUR
    image.putpalette(palette.tobytes())
    text = PngImagePlugin.PngInfo()
    text.add_text(SOURCE, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as unfinished:
        image.save(unfinished, 'PNG', pnginfo=text, compress_level=3)
    return ''


def was_made_of(target: Path, source: str) -> bool:
    """Says whether a mask has been written from a state of its source and by a rule."""
    try:
        with Image.open(target) as image:
            return image.info.get(SOURCE) == source
    except OSError:
        return False


@lru_cache(1)
def rule_of(text: str) -> MaskRule:
    """Returns the rule in JSON, made once in each process."""
    return MaskRule.from_json(text)

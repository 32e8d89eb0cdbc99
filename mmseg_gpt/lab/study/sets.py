"""The sets of photographs: where they come from, and which of their images are for what.

Learning rates, and whatever else is chosen, are chosen on validation images; test images are looked at once, at the
end. Lists of images are written beside the runs and never into the folder of the photographs. Hashes of the names
decide, so they are the same on every machine, and a smaller part is part of a larger one.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...checks.missing import is_there, told
from ...datasets.photographs import FLOWERS, FLOWERS_TEST, PHOTOGRAPHS, SPLITS, TEXTURES, differences, images_of
from ...files import replacing
from ..rates import MIOU
from ..suite.plans import ACCURACY

Lines = dict[str, list[str]]  # lines of a list of images, by split


class StudySet(NamedTuple):
    """A set of photographs, and how much is done with it.

    Attributes:
        title: The name in texts.
        score: The number that counts.
        classes: How many there are.
        size: Side of what the ViT sees of an image in training, in pixels.
        batch: Images of an iteration.
        iterations: Of every training in the comparison of methods.
        searching: Of the trainings by which learning rates and heads are chosen.
        longer: Of the trainings that aim high, on larger images.
        sgd: A learning rate of the paper for SGD, of Table 5 or of its ADE20K. It is not searched.
        split: Returns the lines of each split, of the set in a folder.
        group: Returns of what kind the image of a line is; a part of a list has its share of each kind.
    """
    title: str
    score: str
    classes: int
    size: int
    batch: int
    iterations: int
    searching: int
    longer: int
    sgd: float
    split: Callable[[Path], Lines]
    group: Callable[[str], str]


def order(names: Iterable[str], purpose: str) -> list[str]:
    """Returns names in an order that only they and the purpose decide; a .png has the place of the .jpg it was."""
    return sorted(names, key=lambda name: hashlib.sha256(
        f'{purpose} {name}'.replace('.png ', '.jpg ').encode()).digest())


def missing(name: str, root: Path) -> list[str]:
    """Says what a copy of a set lacks, or in what it differs from the set, with the address to get it from."""
    known = PHOTOGRAPHS[name]
    absent = [folder for folder in known.folders if not is_there(root / folder)]
    how = (f'        get:        {known.address}\n        put:        into ROOT: {known.how}\n'
           '        or:         --data DIR names the folder that has it')
    if absent:
        return [told(f'{known.title}: not there, or empty:', how, {str(root): absent})]
    try:
        wrong = differences(root, known)
    except OSError as error:
        wrong = [str(error)]
    return [told(f'{known.title}: no true copy:', how, {str(root): wrong})] if wrong else []


def by_group(lines: Iterable[str], group: Callable[[str], str]) -> dict[str, list[str]]:
    """Returns lines by the group that they are of."""
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(group(line), []).append(line)
    return found


def parted(lines: Iterable[str], number: int, purpose: str) -> tuple[list[str], list[str]]:
    """Splits lines of images and class numbers: so many of each class, and the rest."""
    chosen, rest = [], []
    for same in by_group(lines, label).values():
        ordered = order(same, purpose)
        chosen += ordered[:number]
        rest += ordered[number:]
    return chosen, rest


def share(lines: Sequence[str], fraction: float, seed: int, group: Callable[[str], str]) -> list[str]:
    """Returns a part of a list, at least one line of each group; that of a smaller fraction is part of it."""
    return [line for same in by_group(lines, group).values()
            for line in order(same, f'labels {seed}')[:max(1, round(fraction * len(same)))]]


def label(line: str) -> str:
    """Returns the class number at the end of a line."""
    return line.rpartition(' ')[2]


def split_flowers(root: Path) -> Lines:
    """Returns the split of Flowers-17: the listed images for testing, and 16 of each class for validation."""
    lines = labelled(root, 'flowers17', FLOWERS)
    test = [line for line in lines if int(line.rpartition('.')[0][-4:]) in FLOWERS_TEST]
    val, train = parted([line for line in lines if line not in test], 16, 'val')
    return dict(train=train, val=val, test=test)


def labelled(root: Path, name: str, classes: Sequence[str]) -> list[str]:
    """Returns the images of a set, with the number of their class behind them.

    Args:
        root: The folder of the set.
        name: One of ``PHOTOGRAPHS``.
        classes: Names of the classes, which are those of their folders, in the order of their numbers.
    """
    return [f'{folder}/{file.name} {classes.index(folder)}' for image, file in images_of(root, PHOTOGRAPHS[name])
            for folder in [image.partition('/')[0]]]


def split_textures(root: Path) -> Lines:
    """Returns a split of ten textures: of the 120 images of each, 60 for testing and 15 for validation."""
    test, rest = parted(labelled(root, 'dtd10', TEXTURES), 60, 'test')
    val, train = parted(rest, 15, 'val')
    return dict(train=train, val=val, test=test)


def split_streets(root: Path) -> Lines:
    """Returns the standard split of CamVid."""
    return {split: sorted(path.stem for path in (root / split).iterdir() if path.suffix in ('.jpg', '.png'))
            for split in SPLITS}


# Sizes and iterations are what ten hours on two cores allow; see `mmseg-gpt study SET --estimate`.
SETS = {
    'flowers17': StudySet('Flowers-17', ACCURACY, 17, 112, 16, 120, 120, 240, 0.1, split_flowers, label),
    'dtd10': StudySet('Ten textures', ACCURACY, 10, 112, 16, 120, 120, 240, 0.25, split_textures, label),
    'camvid': StudySet('CamVid', MIOU, 11, 224, 4, 400, 120, 800, 0.001, split_streets,
                          lambda name: name.partition('_')[0]),
}


def list_file(folder: Path, split: str, fraction: float = 1., seed: int | str = '') -> Path:
    """Returns the file of a list of images: of a split, or of the part of the training images with a seed.

    The path is absolute, as datasets look for others in their own folder.
    """
    name = split if fraction == 1 else f'{split}_{100 * fraction:g}_seed_{seed}'
    return folder.absolute() / f'{name}.txt'


def write_lists(photographs: StudySet, root: Path, folder: Path, fractions: Iterable[float], seeds: Iterable[int],
                most: int | None = None) -> Mapping[str, int]:
    """Writes the lists of images.

    Args:
        photographs: The set.
        root: Its folder.
        folder: Where the lists go.
        fractions: Of the training images.
        seeds: Of the draws of these.
        most: Take no more than so many images of each group, to try things out.

    Returns:
        The number of images, by split.

    Raises:
        SystemExit: a list is there and is another, so there are runs of other images.
    """
    seeds, found = list(seeds), photographs.split(root)
    if most is not None:
        found = {split: [line for same in by_group(lines, photographs.group).values() for line in same[:most]]
                 for split, lines in found.items()}
    lists = {list_file(folder, split): sorted(lines) for split, lines in found.items()}
    for fraction in fractions:
        lists |= {list_file(folder, 'train', fraction, seed): sorted(
            share(found['train'], fraction, seed, photographs.group)) for seed in seeds}
    folder.mkdir(parents=True, exist_ok=True)
    for path, lines in lists.items():
        text = ''.join(f'{line}\n' for line in lines)
        if path.is_file() and path.read_text(encoding='utf-8') != text:
            raise SystemExit(f'{path} lists other images than those that would be taken from {root} now: --out DIR '
                             'writes elsewhere')
        if not path.is_file():
            with replacing(path) as unfinished:
                unfinished.write_text(text, encoding='utf-8')
    return {split: len(lines) for split, lines in found.items()}

"""Understanding all masks of a dataset together: which kind they are, and what their values stand for."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...wording import listed
from ..survey import Progress
from .as_binary import judge_binary
from .as_colours import TOLERANCE, judge_colours
from .as_indices import judge_indices
from .class_table import ClassTable
from .evidence import Evidence, code_of, colours_of, percent, read_ignored
from .facts import MaskFacts, gather
from .findings import Understanding
from .known import recognise
from .rule import IGNORED, nearest_colours
from .types import Pair

__all__ = ['Understanding', 'understand_masks']

MOSTLY_IGNORED = 0.5  # the share of ignored pixels from which there is a warning


def understand_masks(splits: Mapping[str, Sequence[Pair]], classes: ClassTable | None = None,
                     ignore: Iterable[int | str | tuple[int, int, int]] = (), workers: int = 1,
                     progress: Progress = lambda done, total: done, cache: Path | None = None,
                     template: Path = Path('classes.csv')) -> Understanding:
    """Reads all masks of a dataset, and finds the one rule by which they become class numbers.

    Args:
        splits: Pairs of image and mask by split, including 'train' and 'val'. Pairs without a mask are skipped.
        classes: The meaning of values or colours; None if not given.
        ignore: Values, colours ("r,g,b") or names of classes to ignore.
        workers: Number of processes.
        progress: Function for a progress bar: it gets the results as they come and their number, and hands them on.
        cache: A file that keeps what was read, so that only changed masks are read again; None for none.
        template: Where the caller will write :attr:`Understanding.template`; messages name it. Where ``classes`` are
            from this very file, another name is taken; see :attr:`Understanding.template_file`.

    Returns:
        Understanding: The rule and the counts. Problems are listed in ``problems``, and do not raise an error.
    """
    pairs = {split: [(str(pair.mask), str(pair.image)) for pair in own if pair.mask] for split, own in splits.items()}
    gathered = iter(gather([pair for own in pairs.values() for pair in own], workers, progress, cache))
    by_split = {split: [next(gathered) for _ in own] for split, own in pairs.items()}
    facts = [each for own in by_split.values() for each in own]
    own = classes is not None and Path(classes.source).absolute() == Path(template).absolute()
    found = Understanding(template_file=template.with_stem(f'{template.stem}_found') if own else template)
    if not facts:
        found.problems.append('No image has a mask')
        return found
    check_files(facts, found)
    readable = [each for each in facts if not each.problem]
    if not readable:
        return found
    evident = None if classes or any(each.kind == 'colours' for each in readable) else recognise(readable)
    if evident:
        found.notes.append(f'The names and values of the masks are those of {evident.source}, so its classes are '
                           'taken. If you mean others: --classes, --ignore')
    ignored, problems = read_ignored(ignore, classes or evident)
    found.problems += problems
    judge(Evidence(readable, classes or evident, ignored, found.template_file), found)
    found.sizes = {split: [each.size for each in own if each.size] for split, own in by_split.items()}
    if found.rule:
        count_classes(by_split, found)
        check_counts(by_split, found, declared=classes is not None)
    return found


def judge(evidence: Evidence, found: Understanding) -> None:
    """Decides whether masks are colours, binary or numbers, and leaves the rest to the judgement of that kind."""
    if in_colours(evidence, found):
        judge_colours(evidence, found)
    elif problem := two_codings(evidence):
        found.problems.append(problem)
    elif not judge_binary(evidence, found):
        judge_indices(evidence, found)


def two_codings(evidence: Evidence) -> str | None:
    """Says which masks have 1 and which 255 where there is nothing else but 0, as if both stood for one class."""
    sets = [(set(each.values.tolist()), each.mask) for each in evidence.facts]
    ones, whites = ([file for values, file in sets if some <= values] for some in ({1}, {0, 255}))
    if 255 in evidence.ignore.values or not ones or not whites or set(ones) & set(whites) or any(
            values - {0, 1, 255} for values, _ in sets):
        return None
    return (f'{ones[0]} has 0 and 1, and {whites[0]} 0 and 255 ({len(ones)} and {len(whites)} masks): does 255 '
            'stand for the same class as 1? Then save all masks alike. If 255 means "not labelled": --ignore 255')


def in_colours(evidence: Evidence, found: Understanding) -> bool:
    """Says whether colours, and not numbers, tell the classes apart."""
    kinds, table = evidence.kinds(), evidence.table
    if 'colours' in kinds:
        return True
    if 'palette' in kinds and (both := changing_index(evidence.facts)) and not (table and table.has_values):
        found.notes.append(f'The palettes of the masks differ ({both[0]} and {both[1]}), so their colours are read and '
                           'not their numbers')
        return True
    if not table or not table.has_colours or table.has_values:
        return False
    totals, named = evidence.colours, np.array([
        code_of(colour) for colour in [*(row.colour for row in table.rows), *evidence.ignore.colours]])
    near, far = nearest_colours(totals.values, named)
    fits = far <= (TOLERANCE if any(each.lossy for each in evidence.facts) else 0)
    if totals.share(fits) > 0.9 and len(np.unique(near[fits])) > 1:
        return True
    found.notes.append(f'The masks have numbers, not the colours of {table.source}: its lines are numbered from 0')
    return False


def changing_index(facts: Sequence[MaskFacts]) -> tuple[str, str] | None:
    """Returns two palette masks in which the same number has different colours; None if there are none."""
    seen: dict[int, tuple[int, str]] = {}
    for each in facts:
        if each.kind == 'palette':
            for value, colour in zip(each.values.tolist(), each.colours.tolist()):
                other, file = seen.setdefault(value, (colour, each.mask))
                if other != colour:
                    return file, each.mask
    return None


def check_files(facts: Sequence[MaskFacts], found: Understanding) -> None:
    """Says which files cannot be read, are peculiar, or differ in size; alike ones together."""
    found.problems += together(facts, lambda each: each.problem, lambda each: each.mask)
    found.problems += together(facts, lambda each: each.image_problem, lambda each: each.image)
    found.warnings += together(facts, lambda each: each.note and f'{each.mask} {each.note}', lambda each: each.mask)
    differing = [each for each in facts if each.size and each.image_size and each.size != each.image_size
                 and not each.image_problem]
    if differing:
        first = differing[0]
        (width, height), (own_width, own_height) = first.image_size, first.size
        turned = [each for each in differing if each.size == each.image_size[::-1]]
        scaled = abs(own_width * height - own_height * width) <= max(width, height, own_width, own_height)
        rounded = max(abs(own_width - width), abs(own_height - height)) == 1
        found.problems.append(
            f'{first.mask} has {own_width}x{own_height} pixels, but its image {first.image} has {width}x{height} '
            f'({len(differing)} of {len(facts)} pairs differ in size). ' + (
                f'{len(turned)} are as wide as the image is high: one of the two was turned, so turn it back' if turned
                else 'They differ by one row or column, as rounding makes it: export both in one size, or scale the '
                'masks to their images, without smoothing (nearest neighbour)' if rounded else
                'Both have the same shape, so one was scaled: scale the masks to their images, without smoothing '
                '(nearest neighbour)' if scaled else
                'One was cropped, or they do not belong together; export both anew'))


def together(facts: Sequence[MaskFacts], say: Callable[[MaskFacts], str],
             file: Callable[[MaskFacts], str]) -> list[str]:
    """Returns what is said of files, alike sentences once with the number of files and the first names."""
    groups: dict[str, dict[str, None]] = {}
    for each in facts:
        if sentence := say(each):
            groups.setdefault(sentence.removeprefix(file(each)), {})[file(each)] = None
    return [f'{listed([*files], 1)}{rest}' if len(files) == 1 else
            f'{next(iter(files))}{rest} ({len(files)} files: {listed([*files], 4)})' for rest, files in groups.items()]


def count_classes(by_split: Mapping[str, Sequence[MaskFacts]], found: Understanding) -> None:
    """Counts the pixels and masks of each class."""
    rule, number = found.rule, len(found.classes)
    for split, own in by_split.items():
        pixels, images, ignored = np.zeros(number, np.int64), np.zeros(number, np.int64), 0
        for facts in (each for each in own if not each.problem):
            values = colours_of(facts) if rule.kind == 'colours' else facts.values
            counts = np.bincount(rule.classes_of(values), facts.counts, minlength=256).astype(np.int64)
            pixels += counts[:number]
            images += counts[:number] > 0
            ignored += int(counts[IGNORED])
            if facts.pixels and counts[IGNORED] >= facts.pixels:
                found.blank.setdefault(split, []).append(facts.mask)
        found.pixels[split], found.images[split], found.ignored[split] = pixels, images, ignored


def as_ignored(classes: Sequence[str]) -> list[str]:
    """Returns what --ignore takes for classes: names, or the numbers in names that were made up for values."""
    return [name.removeprefix('class ') if name.removeprefix('class ').isdigit() else name for name in classes]


def check_counts(by_split: Mapping[str, Sequence[MaskFacts]], found: Understanding, declared: bool) -> None:
    """Says which classes have no pixel in training or validation, and where most pixels are ignored."""
    for split in [split for split in ('train', 'val', 'test') if by_split.get(split)]:
        absent = [name for name, images in zip(found.classes, found.images[split]) if not images]
        none = f'{len(absent)} of {len(found.classes)} classes have no pixel in {split} ({listed(absent, 8)})'
        if absent and split == 'train':
            file = shlex.quote(str(found.template_file))
            remedy = f'To go on without them: --classes {file}, which lists those found'
            if elsewhere := [name for name in absent if any(images[found.classes.index(name)]
                                                            for images in found.images.values())]:
                remedy += f', and --ignore {shlex.join(as_ignored(elsewhere))}, as other splits have them'
            (found.problems if declared else found.warnings).append(
                f'{none}, so they cannot be learned. {remedy}. Else correct their values or colours{hint_255(found)}')
        elif absent:
            found.warnings.append(f'{none}, so means over classes leave them out there')
        if blank := found.blank.get(split):
            found.warnings.append(f'{len(blank)} masks in {split} are ignored as a whole, such as {blank[0]}: nothing '
                                  'is learned or measured on them')
        ignored, total = found.ignored[split], found.ignored[split] + int(found.pixels[split].sum())
        if total and ignored > MOSTLY_IGNORED * total:
            found.warnings.append(f'{percent(ignored / total)} of the pixels in {split} are ignored')


def hint_255(found: Understanding) -> str:
    """Says that the ignored 255 may be the class that is missing, where it occurs."""
    rule = found.rule
    meant = rule.kind == 'indices' and rule.value_to_class.get(255) == IGNORED and any(found.ignored.values())
    return '. 255 is ignored; if it is one of these classes, give its value: "255,name" in that table' if meant else ''

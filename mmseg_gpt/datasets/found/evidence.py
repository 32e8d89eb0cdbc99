"""All masks of a dataset taken together, and what the user said of them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...wording import listed
from .class_table import ClassTable, Colour, as_colour
from .facts import MaskFacts, as_code, as_rgb
from .findings import Understanding


@dataclass(frozen=True)
class Totals:
    """Pixels by value, or by colour as 0xRRGGBB, over all masks.

    Attributes:
        values: The values (V,), sorted.
        counts: Number of pixels (V,) of each.
        solid: Number of pixels (V,) of each whose neighbours are equal; few in blurred borders.
        first: Place (V,) of the first mask that has it.
        pixels: Number of all pixels.
    """
    values: np.ndarray
    counts: np.ndarray
    solid: np.ndarray
    first: np.ndarray
    pixels: int

    def share(self, chosen: np.ndarray) -> float:
        """Returns the share of all pixels that have some of the values.

        Args:
            chosen: Which (V,), as a mask or as places.
        """
        return float(self.counts[chosen].sum() / max(self.pixels, 1))

    def solid_share(self, chosen: np.ndarray) -> float:
        """Returns which share of the pixels of some values is solid."""
        return float(self.solid[chosen].sum() / max(self.counts[chosen].sum(), 1))


def total(facts: Sequence[MaskFacts], values: Callable[[MaskFacts], np.ndarray]) -> Totals:
    """Sums up the pixels of all masks, whose values are given by a function."""
    own = [values(each) for each in facts]
    joined = np.concatenate([*own, np.zeros(0, np.int64)])
    found, first, place = np.unique(joined, return_index=True, return_inverse=True)
    files = np.repeat(np.arange(len(own)), [len(each) for each in own])
    counts, solid = (np.bincount(place, np.concatenate([getattr(each, name) for each in facts] + [np.zeros(0)]),
                                 minlength=len(found)).astype(np.int64) for name in ('counts', 'solid'))
    return Totals(found, counts, solid, files[first], sum(each.pixels for each in facts))


def colours_of(facts: MaskFacts) -> np.ndarray:
    """Returns the colours (V,) of a mask's values as 0xRRGGBB; values that are no levels of gray are kept negative."""
    if facts.kind == 'colours':
        return facts.values
    if facts.kind == 'palette':
        return facts.colours
    return np.where((facts.values >= 0) & (facts.values <= 255), facts.values * 0x010101, -1 - np.abs(facts.values))


@dataclass
class Evidence:
    """What is known before it is decided how masks are read.

    Attributes:
        facts: Of all masks that can be read.
        table: The classes that the user or a file in the folder names, or those of a known dataset.
        ignore: What the user wants ignored.
        template: The file that the user will find a table to complete in.
    """
    facts: list[MaskFacts]
    table: ClassTable | None
    ignore: 'Ignored'
    template: Path

    @cached_property
    def values(self) -> Totals:
        """The pixels by value."""
        return total(self.facts, lambda facts: facts.values)

    @cached_property
    def colours(self) -> Totals:
        """The pixels by colour."""
        return total(self.facts, colours_of)

    def file(self, totals: Totals, place: int) -> str:
        """Returns the first mask that has a value, by the value's place in the totals."""
        return self.facts[totals.first[place]].mask

    def kinds(self) -> set[str]:
        """Returns the kinds of the masks."""
        return {each.kind for each in self.facts}


@dataclass
class Ignored:
    """What the user wants ignored, by what it is.

    Attributes:
        values: Values in the masks.
        colours: Colours.
        names: Names of classes.
    """
    values: set[int] = field(default_factory=set)
    colours: set[Colour] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def read_ignored(items: Iterable[int | str | Colour], table: ClassTable | None) -> tuple[Ignored, list[str]]:
    """Tells values, colours and names apart.

    Args:
        items: As ``--ignore`` has them: 11, "128,64,128", "#804080" or "void".
        table: The classes.

    Returns:
        What is ignored, and a sentence for each item that is none of these.
    """
    ignored, problems = Ignored(), []
    names = {row.name for row in table.rows} | set(table.merges.values()) if table else set()
    for item in items:
        text = item if isinstance(item, str) else ','.join(map(str, np.atleast_1d(item)))
        if text in names:
            ignored.names.add(text)
        elif re.fullmatch(r'-?\d+', text):
            ignored.values.add(int(text))
        elif re.fullmatch(r'#[0-9a-fA-F]{6}|\d+,\d+,\d+', text):
            ignored.colours.add(as_colour(text))
        else:
            known = f'the classes are {listed(sorted(names), 12)}' if names else 'no classes are named'
            problems.append(f'--ignore {text} is no value, no colour and no class: {known}')
    return ignored, problems


def say_ignored_values(evidence: Evidence, found: Understanding) -> None:
    """Says how many pixels the user's ignored values have, and which of these never occur."""
    totals = evidence.values
    chosen = np.isin(totals.values, list(evidence.ignore.values))
    if chosen.any():
        found.notes.append(f'Ignored by --ignore: {listed(totals.values[chosen].tolist())}, '
                           f'{percent(totals.share(chosen))} of the pixels')
    for value in sorted(evidence.ignore.values - set(totals.values.tolist())):
        found.warnings.append(f'--ignore {value}: no mask has this value')


def percent(share: float) -> str:
    """Returns a share as people read it: 12.3 %, or less than 0.01 %."""
    return f'{share:.1%}' if share >= 0.01 else f'{share:.2%}' if share >= 0.0001 else 'less than 0.01%'


def colour_text(code: int) -> str:
    """Returns a colour 0xRRGGBB as red, green and blue."""
    return '({},{},{})'.format(*as_rgb(code))


def code_of(colour: Colour) -> int:
    """Returns a colour as 0xRRGGBB."""
    return int(as_code(np.array(colour)))

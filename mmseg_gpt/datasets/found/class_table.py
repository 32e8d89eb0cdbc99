"""Classes as people write them down: names, colours and pixel values, in a file or on the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

Colour = tuple[int, int, int]


class ClassTableError(ValueError):
    """A table of classes cannot be read; the message names it and says what to write instead."""


class Row(NamedTuple):
    """One line of a table of classes.

    Attributes:
        name: What the masks' author calls it.
        value: Its value in the masks, or None if the table does not say.
        colour: Its colour in the masks, or None if the table does not say.
    """
    name: str
    value: int | None = None
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassTable:
    """What the values or colours in masks stand for.

    Attributes:
        rows: The lines of the table, in their order. Lines of the same name make one class.
        merges: The class that a row goes into, by the row's name, where it has another name.
        source: Where the table is from, for messages: a file, or "--classes".
    """
    rows: tuple[Row, ...]
    merges: dict[str, str] = field(default_factory=dict)
    source: str = '--classes'

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, each once, without those whose names say that they are not to be learned."""
        raise NotImplementedError


def read_classes(text: str | Path) -> ClassTable:
    """Reads a table of classes from a file, or from text as ``--classes`` has it.

    Args:
        text: A file (.txt, .csv, .json, .mat), or names separated by commas. ``car=car+truck`` makes one class of
            several rows; ``road=0,car=1+2`` gives the values in the masks. Both may follow a file, after a comma.

    Raises:
        ClassTableError: the text or the file cannot be understood.
    """
    raise NotImplementedError


def find_classes(root: Path) -> ClassTable | None:
    """Looks for a table of classes in a folder and those directly below it, by the names that such files have.

    Raises:
        ClassTableError: two tables contradict each other, or one cannot be understood.
    """
    raise NotImplementedError

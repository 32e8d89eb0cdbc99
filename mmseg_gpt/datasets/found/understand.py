"""Understanding all masks of a dataset together: which kind they are, and what their values stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..survey import Progress
from .class_table import ClassTable
from .rule import MaskRule

if TYPE_CHECKING:
    from .layout import Pair


@dataclass
class Understanding:
    """What is known of the masks of a dataset before any is rewritten.

    Attributes:
        rule: How masks are read; None if that is not known, and ``problems`` says why.
        notes: What was found and decided, as sentences for the user: the kind, the classes, what is ignored and why.
        warnings: Sentences on what may be meant, and may be a mistake.
        problems: Sentences on what must be put right first; each names a file and the remedy.
        pixels: Number of pixels (C,) of each class, by split.
        images: Number of masks (C,) in which each class occurs, by split.
        ignored: Number of ignored pixels, by split.
        sizes: Width and height of each mask, by split.
        template: A table of the values or colours found, as a CSV file for the user to complete; see
            :func:`~mmseg_gpt.datasets.found.class_table.read_classes`. Empty if there is nothing to name.
    """
    rule: MaskRule | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    template: str = ''

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty without a rule."""
        return self.rule.classes if self.rule else ()


def understand_masks(splits: 'Mapping[str, Sequence[Pair]]', classes: ClassTable | None = None,
                     ignore: Sequence[int | str] = (), workers: int = 1,
                     progress: Progress = lambda done, total: done, cache: Path | None = None,
                     template: Path = Path('classes.csv')) -> Understanding:
    """Reads all masks of a dataset, and finds the one rule by which they become class numbers.

    Args:
        splits: Pairs of image and mask by split; 'train' and 'val' among them. Pairs without a mask are passed over.
        classes: What values or colours stand for; None if nobody said.
        ignore: Values, colours ("r,g,b") or names of classes that are not to be learned.
        workers: Number of processes.
        progress: Function for a progress bar: it gets the results as they come and their number, and hands them on.
        cache: A file that keeps what was read, so that only changed masks are read again; None for none.
        template: Where the caller will write :attr:`Understanding.template`; messages name it.

    Returns:
        Understanding: The rule and the counts. What is wrong is in its ``problems``, and does not raise an error.
    """
    raise NotImplementedError

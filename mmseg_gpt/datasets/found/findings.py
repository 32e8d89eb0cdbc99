"""What is known of the masks of a dataset before any is rewritten."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .rule import MaskRule


@dataclass
class Understanding:
    """What is known of the masks of a dataset before any is rewritten.

    Attributes:
        rule: How masks are read; None if that is not known, and ``problems`` says why.
        notes: What was found and decided, as sentences for the user: the kind, the classes, what is ignored and why.
        warnings: Sentences on what may be intended or a mistake.
        problems: Sentences on what must be fixed first; each names a file and the remedy.
        pixels: Number of pixels (C,) of each class, by split.
        images: Number of masks (C,) in which each class occurs, by split.
        ignored: Number of ignored pixels, by split.
        sizes: Width and height of each mask, by split.
        blank: Masks of which every pixel is ignored, by split.
        template: A table of the values or colours found, as a CSV file for the user to complete; see
            :func:`~mmseg_gpt.datasets.found.class_table.read_classes`. Empty if there is nothing to name.
        template_file: Where the caller is to write it; the messages name this file.
    """
    rule: MaskRule | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    blank: dict[str, list[str]] = field(default_factory=dict)
    template: str = ''
    template_file: Path = Path('classes.csv')

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty without a rule."""
        return self.rule.classes if self.rule else ()

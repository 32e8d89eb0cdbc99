"""The rule by which masks become class numbers."""

from dataclasses import dataclass, field

import numpy as np

from .class_table import Colour
from .masks import RawMask

IGNORED = 255


@dataclass(frozen=True)
class MaskRule:
    """How the values of masks become class numbers; one rule for all masks of a dataset.

    Attributes:
        kind: 'indices', 'colours' or 'binary'.
        classes: Names of the classes, in the order of their numbers.
        palette: A colour for each class: its own in the masks where it has one, else distinct ones.
        value_to_class: Class number by value, or by colour; 255 is ignored. Several may go into one class.
        threshold: In binary masks, the lowest value that is foreground.
        tolerance: How far each channel of a colour may be from one in the table to be read as it. Colours between
            classes, as blurred borders have them, are ignored if this is not 0.
    """
    kind: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    value_to_class: dict[int | Colour, int] = field(default_factory=dict)
    threshold: int = 0
    tolerance: int = 0

    def apply(self, mask: RawMask) -> np.ndarray:
        """Returns the class numbers (H, W) of a mask as uint8; 255 is ignored.

        Raises:
            MaskError: it has values or colours that the rule does not know. The message does not name the file.
        """
        raise NotImplementedError

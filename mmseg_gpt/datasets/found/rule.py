"""The rule by which masks become class numbers."""

import colorsys
import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from ...wording import listed
from .class_table import Colour
from .facts import BAND, as_code, as_rgb
from .masks import MaskError, RawMask

IGNORED = 255
UNKNOWN = 254  # stands for values and colours that a rule does not name
LOWEST, HIGHEST = -1, 65535  # values that a rule can name


@dataclass(frozen=True)
class MaskRule:
    """How the values of masks become class numbers; one rule for all masks of a dataset.

    Attributes:
        kind: 'indices', 'colours' or 'binary'.
        classes: Names of the classes, in the order of their numbers; at most 254.
        palette: A colour for each class: its own in the masks where it has one, else distinct ones.
        value_to_class: Class number by value, or by colour; 255 is ignored. Several may go into one class. In binary
            masks, these are the values that the threshold does not decide on.
        threshold: In binary masks, the lowest value that is foreground.
        tolerance: How far each channel of a colour may be from one that is named to be read as it. Colours further
            away, as blurred borders have them, are ignored if this is not None.
    """
    kind: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    value_to_class: dict[int | Colour, int] = field(default_factory=dict)
    threshold: int = 0
    tolerance: int | None = None

    def apply(self, mask: RawMask) -> np.ndarray:
        """Returns the class numbers (H, W) of a mask as uint8; 255 is ignored.

        Args:
            mask: As :func:`~mmseg_gpt.datasets.found.masks.read_mask` returns it.

        Raises:
            MaskError: it has values or colours that the rule does not know. The message does not name the file.
        """
        if self.kind != 'colours' and mask.kind == 'colours':
            raise MaskError('is in colours, and the other masks have one number for each pixel')
        rows = max(1, BAND // mask.values.shape[1])
        return np.concatenate([self.apply_to_band(mask._replace(values=mask.values[top:top + rows]))
                               for top in range(0, len(mask.values), rows)])

    def apply_to_band(self, mask: RawMask) -> np.ndarray:
        """Returns the class numbers of some rows of a mask, so that little memory is needed for large ones."""
        values = codes_of(mask) if self.kind == 'colours' else mask.values
        classes = self.classes_of(values)
        if (classes == UNKNOWN).any():
            unknown = np.unique(values[classes == UNKNOWN])
            named = [as_rgb(code) for code in unknown] if self.kind == 'colours' else unknown.tolist()
            raise MaskError(f'has {"the colours" if self.kind == "colours" else "the values"} {listed(named)}, which '
                            'are of no class')
        return classes

    def classes_of(self, values: np.ndarray) -> np.ndarray:
        """Returns class numbers for values, or for colours as 0xRRGGBB, of any shape; 254 for unknown ones."""
        if self.kind == 'colours':
            return self.table[values] if self.tolerance is None else self.nearest(values)
        if values.dtype == np.uint8:
            return self.table[-LOWEST:][values]
        inside = (values >= LOWEST) & (values <= HIGHEST)
        return np.where(inside, self.table[np.where(inside, values, 0) - LOWEST], np.uint8(UNKNOWN))

    def as_json(self) -> str:
        """Returns the rule as text, from which :meth:`from_json` makes it again."""
        return json.dumps(asdict(self) | dict(value_to_class=list(self.value_to_class.items())))

    @classmethod
    def from_json(cls, text: str) -> 'MaskRule':
        """Returns the rule that :meth:`as_json` wrote.

        Args:
            text: What it wrote.
        """
        own = json.loads(text)
        named = {tuple(key) if isinstance(key, list) else key: label for key, label in own['value_to_class']}
        palette = tuple(tuple(colour) for colour in own['palette'])
        return cls(**own | dict(classes=tuple(own['classes']), palette=palette, value_to_class=named))

    @cached_property
    def table(self) -> np.ndarray:
        """Class numbers by value from -1 to 65535, or by the 2^24 colours."""
        if self.kind == 'colours':
            table = np.full(1 << 24, UNKNOWN, np.uint8)
            for colour, label in self.value_to_class.items():
                table[int(as_code(np.array(colour)))] = label
            return table
        table = np.full(HIGHEST - LOWEST + 1, UNKNOWN, np.uint8)
        if self.kind == 'binary':
            table[-LOWEST:] = np.arange(HIGHEST + 1) >= self.threshold
        for value, label in self.value_to_class.items():
            table[value - LOWEST] = label
        return table

    def nearest(self, codes: np.ndarray) -> np.ndarray:
        """Returns the class numbers of colours, of which near ones are read as the nearest and others are ignored."""
        classes = self.table[codes]
        rest = classes == UNKNOWN
        found, place = np.unique(codes[rest], return_inverse=True)
        near, far = nearest_colours(found, self.codes)
        classes[rest] = np.where(far <= self.tolerance, self.table[near], IGNORED)[place]
        return classes

    @property
    def codes(self) -> np.ndarray:
        """The colours that are named, as 0xRRGGBB."""
        return as_code(np.array(list(self.value_to_class)))


def codes_of(mask: RawMask) -> np.ndarray:
    """Returns the colours (H, W) of a mask as 0xRRGGBB, whatever its kind.

    Raises:
        MaskError: its values are no levels of gray.
    """
    if mask.kind == 'palette':
        return as_code(mask.palette)[mask.values]
    if mask.kind == 'colours':
        return as_code(mask.values)
    if mask.values.min() < 0 or mask.values.max() > 255:
        raise MaskError('has one number for each pixel, and the other masks are in colours')
    return mask.values.astype(np.int32) * 0x010101


def nearest_colours(codes: np.ndarray, named: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each colour (N,) the nearest of those named (K,), and how far its channels are away at most (N,)."""
    near, far = np.zeros(len(codes), np.int64), np.full(len(codes), 256)
    channels = channels_of(codes)
    for code in named:
        distance = np.abs(channels - channels_of(np.array([code]))).max(1)
        near, far = np.where(distance < far, code, near), np.minimum(distance, far)
    return near, far


def channels_of(codes: np.ndarray) -> np.ndarray:
    """Returns the red, green and blue (N, 3) of colours 0xRRGGBB."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)


def distinct_colours(number: int, taken: Collection[Colour] = ()) -> list[Colour]:
    """Returns colours that are easy to tell apart, always the same ones; none of ``taken`` among them."""
    colours: list[Colour] = []
    step = 0
    while len(colours) < number:  # hues a golden section apart, in three brightnesses
        parts = colorsys.hsv_to_rgb(step * 0.618034 % 1, (0.65, 0.9, 0.5)[step % 3], (0.95, 0.7, 0.85)[step // 3 % 3])
        colour = tuple(round(255 * part) for part in parts)
        if colour not in taken and colour not in colours:
            colours.append(colour)
        step += 1
    return colours


def full_palette(colours: Iterable[Colour | None]) -> tuple[Colour, ...]:
    """Returns a palette in which classes without a colour, or with that of an earlier one, have got distinct ones."""
    colours = list(colours)
    own = [colour if colour not in colours[:i] else None for i, colour in enumerate(colours)]
    fresh = iter(distinct_colours(own.count(None), [colour for colour in own if colour]))
    return tuple(colour if colour is not None else next(fresh) for colour in own)

"""Reading masks as people have them: indices, palettes, colours, arrays; judged by content, not by suffix."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class MaskError(ValueError):
    """A mask cannot be read; the message names the file and says what to do."""


class RawMask(NamedTuple):
    """The pixels of a mask as they are in its file.

    Attributes:
        values: Integers (H, W), or 8-bit colours (H, W, 3) in the order red, green, blue.
        kind: 'gray', 'palette', 'channels' (three equal ones, of which one is kept) or 'colours'.
        note: What is peculiar about the file, as a sentence; empty if nothing is.
        palette: Colours (N, 3) of the indices of a palette image, else None.
        lossy: Whether the format blurs values, as JPEG does.
    """
    values: np.ndarray
    kind: str
    note: str = ''
    palette: np.ndarray | None = None
    lossy: bool = False


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> RawMask:
    """Reads a mask: PNG, TIFF, BMP, GIF, JPEG, WebP of 1 to 16 bits, .npy, .npz or .mat.

    Args:
        path: The file. Its content decides how it is read.
        size: Width and height of its image, by which the right variable of a .mat file is known.

    Raises:
        MaskError: it is damaged, or no mask.
    """
    raise NotImplementedError

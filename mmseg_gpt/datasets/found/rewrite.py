"""Rewriting masks of any kind as 8-bit index PNGs, which is what training reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..survey import Progress
from .rule import MaskRule

if TYPE_CHECKING:
    from .layout import Pair


def write_masks(splits: 'Mapping[str, Sequence[Pair]]', rule: MaskRule, folder: Path, workers: int = 1,
                progress: Progress = lambda done, total: done) -> dict[str, Path]:
    """Writes each mask as class numbers 0 to C-1 with 255 for ignored, and a list of pairs for each split.

    Masks that have been written before are kept, unless their source (by size and time of change) or the rule has
    changed since. Sources are never touched.

    Args:
        splits: Pairs of image and mask by split.
        rule: How they are read.
        folder: Where to: ``masks/SPLIT/NAME.png`` and ``SPLIT.csv`` below it.
        workers: Number of processes.
        progress: Function for a progress bar, as in :func:`~mmseg_gpt.datasets.found.understand.understand_masks`.

    Returns:
        dict: By split, a CSV file with the columns ``image`` (an absolute path) and ``mask`` (relative to ``folder``;
        empty where a pair has none).

    Raises:
        MaskError: a mask changed meanwhile, and the rule no longer fits it.
    """
    raise NotImplementedError

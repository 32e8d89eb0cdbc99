"""Splits images for training and validation, so that frames of one video or scene stay together."""

from collections.abc import Mapping, Sequence

from .types import Pair


def make_split(pairs: Sequence[Pair], shares: Mapping[str, float], seed: int = 0) -> tuple[dict[str, list[Pair]], str]:
    """Splits pairs by their names, and returns the splits and a sentence that says how they were made.

    Args:
        pairs: All pairs.
        shares: The share of each split but 'train', which gets the rest: ``{'val': 0.2}``.
        seed: Another seed splits otherwise.

    Raises:
        FoundError: there are fewer images than splits.
    """
    raise NotImplementedError

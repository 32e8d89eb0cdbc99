"""Masks of one object on a background: 0 and 255, 0 and 1, or with gray edges."""

import numpy as np

from .evidence import Evidence, percent, say_ignored_values
from .findings import Understanding
from .rule import IGNORED, MaskRule, full_palette

ENDS = 1 / 8  # of the range of values, at its lower and upper end: what is nearly background and nearly foreground
AT_ENDS, BETWEEN, SOLID = 0.9, 0.15, 0.1  # shares: at both ends at least; between at most; of that, in regions at most
# A third class shows as a peak in the middle half of the range: PEAK of all pixels at least, and MOST of those in that
# half within NEAR of the range on both sides. Edges are spread over the half.
PEAK, MOST, NEAR = 0.01, 0.6, 1 / 16
NAMES = ('background', 'foreground')


def judge_binary(evidence: Evidence, found: Understanding) -> bool:
    """Takes masks as binary if their values and the classes allow no other reading.

    Args:
        evidence: What is known of the masks.
        found: Gets the rule, and what is to be said of it.

    Returns:
        bool: Whether they are binary.
    """
    table, totals = evidence.table, evidence.values
    kept = ~np.isin(totals.values, list(evidence.ignore.values))
    values = totals.values[kept]
    if len(values) < 2 or values[0] < 0 or evidence.ignore.names or evidence.ignore.colours:
        return False
    highest = int(values[-1])
    if table and (len(table.rows) > 2 or len(table.names) != len(table.rows) or (
            table.has_values and [row.value for row in table.rows] != [0, highest])):
        return False
    blurred = highest >= 128 and 'palette' not in evidence.kinds() and is_blurred(evidence, kept, highest)
    if not blurred and (len(values) > 2 or values[0] != 0):
        return False
    names = named(table.names if table else ())
    exceptions = {value: IGNORED for value in evidence.ignore.values}
    threshold = (highest + 1) // 2
    if blurred and not table and (place := third_level(evidence, kept, highest)) is not None:
        found.problems.append(
            f'{evidence.file(totals, place)} has the value {totals.values[place]} between 0 and {highest}, and '
            f'{percent(totals.share(middle_of(evidence, kept, highest)))} of the pixels are about as gray: '
            'is it a third class? Then save the masks as PNG, with the number of the class in each pixel. If it is an '
            'edge, name the two classes: --classes background,foreground')
        return True
    colours = [row.colour for row in table.rows] if table and len(table.rows) == 2 else [None, None]
    found.rule = MaskRule('binary', names, full_palette(colours), exceptions, threshold)
    found.notes.append(f'The masks are binary: 0 is {names[0]!r}, {highest} is {names[1]!r}')
    say_ignored_values(evidence, found)
    if blurred:
        between = kept & (totals.values != 0) & (totals.values != highest)
        found.warnings.append(
            f'{percent(totals.share(between))} of the pixels of the masks are between 0 and {highest}, as gray edges '
            f'and JPEG make them, such as {evidence.values.values[between][0]} in '
            f'{evidence.file(totals, np.flatnonzero(between)[0])}; {threshold} and more is {names[1]!r}, less is '
            f'{names[0]!r}')
    elif highest not in (1, 255):
        found.warnings.append(f'The masks have two values, 0 and {highest}: {highest} is read as {names[1]!r}')
    return True


def named(names: tuple[str, ...]) -> tuple[str, str]:
    """Returns the names of background and foreground, of which the user may have named both, the second or none."""
    return tuple(names) if len(names) == 2 else ('background', *names) if names else NAMES


def is_blurred(evidence: Evidence, kept: np.ndarray, highest: int) -> bool:
    """Says whether nearly all pixels are at both ends of the range, and what is between makes no regions.

    Class numbers make regions, however few pixels they have, so they are not taken for gray edges.

    Args:
        evidence: What is known of the masks.
        kept: Which values (V,) are not ignored.
        highest: The highest of these.
    """
    totals = evidence.values
    low, high = (kept & (totals.values <= highest * ENDS)), kept & (totals.values >= highest * (1 - ENDS))
    if not low.any() or not high.any():
        return False
    modes = [np.flatnonzero(end)[totals.counts[end].argmax()] for end in (low, high)]
    between = kept.copy()
    between[modes] = False
    return (between.sum() > 2 and totals.share(low | high) >= AT_ENDS * totals.share(kept)
            and totals.share(between) <= BETWEEN and totals.solid_share(between) <= SOLID)


def third_level(evidence: Evidence, kept: np.ndarray, highest: int) -> int | None:
    """Returns the place of the value in the middle of the range that stands out as that of a class; None without one.

    Args:
        evidence: What is known of the masks.
        kept: Which values (V,) are not ignored.
        highest: The highest of these.
    """
    totals, middle = evidence.values, middle_of(evidence, kept, highest)
    if totals.share(middle) < PEAK:
        return None
    place = np.flatnonzero(middle)[totals.counts[middle].argmax()]
    peak = middle & (np.abs(totals.values - totals.values[place]) <= highest * NEAR)
    return int(place) if totals.share(peak) >= MOST * totals.share(middle) else None


def middle_of(evidence: Evidence, kept: np.ndarray, highest: int) -> np.ndarray:
    """Returns which values (V,) are in the middle half of the range."""
    return kept & (np.abs(evidence.values.values - highest / 2) <= highest / 4)

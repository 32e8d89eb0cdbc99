"""What follows from the numbers: where methods cross as labels become fewer, and whether a setting of gates is better.

One rule for all: a mean is better if it is higher by more than twice the larger of the two standard deviations over
seeds. Every function works on the numbers as they are written to results.json.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from ...analysis.series import mean_and_std
from .plan import PAPER

BETTER, NOISE, WORSE = 'better', 'within the noise', 'worse'
CROSSING = (('gpt', 'lora'), ('gpt', 'full'), ('lora', 'full'), ('vpt-deep', 'full'), ('linear', 'full'))
SETS_NEEDED = 2  # on so many sets a setting of gates must beat the paper's
Rows = Mapping[str, Mapping[str, Sequence[float]]]  # values over seeds, by the name of a row and the column


class Crossing(NamedTuple):
    """How two methods compare as labels become fewer.

    Attributes:
        one: A method.
        other: Another.
        differences: Of the means, one minus other, by the percentage of the training images.
        verdicts: What one is by each, by the rule of this module.
        at: The percentage at which the means cross, on a line over its logarithm; None where they do not.
    """
    one: str
    other: str
    differences: dict[str, float]
    verdicts: dict[str, str]
    at: float | None


def verdict(one: Sequence[float], other: Sequence[float]) -> str:
    """Returns whether ``one`` is better than ``other``; values are over seeds, two of each at least."""
    (mean, std), (usual, spread) = mean_and_std(one), mean_and_std(other)
    if abs(mean - usual) <= 2 * max(std, spread):
        return NOISE
    return BETTER if mean > usual else WORSE


def values_in(table: Mapping) -> Rows:
    """Returns the values of a table over seeds, where there are two at least; rows are named by their last part."""
    return {row['name'][-1]: {column: list(values.values()) for column, values in row['values'].items()
                              if len(values) > 1} for row in table['rows']}


def crossings(table: Mapping) -> list[Crossing]:
    """Returns how prompts, LoRA, the head alone and full fine-tuning compare as labels become fewer.

    Args:
        table: The table of few labels.
    """
    rows, found = values_in(table), []
    for one, other in CROSSING:
        first, second = rows.get(one, {}), rows.get(other, {})
        pairs = {column: (first[column], second[column]) for column in table['columns']
                 if column in first and column in second}
        differences = {column: mean_and_std(a)[0] - mean_and_std(b)[0] for column, (a, b) in pairs.items()}
        if len(pairs) > 1:
            found.append(Crossing(one, other, differences, {column: verdict(*pair) for column, pair in pairs.items()},
                                  crossing_point(differences)))
    return found


def crossing_point(differences: Mapping[str, float]) -> float | None:
    """Returns the percentage at which a difference changes its sign, None where it does not.

    Args:
        differences: By percentages such as '10 %', ascending.
    """
    points = [(math.log(float(column.split()[0])), value) for column, value in differences.items()]
    for (left, before), (right, after) in pairwise(points):
        if before * after < 0:
            return math.exp(left + (right - left) * before / (before - after))
    return None


class GateVerdict(NamedTuple):
    """Which settings of gates beat the paper's.

    Attributes:
        sets: The sets that were looked at.
        verdicts: By setting and set, what it is beside the paper's.
        offered: The settings that are better on ``SETS_NEEDED`` sets at least.
    """
    sets: list[str]
    verdicts: dict[str, dict[str, str]]
    offered: list[str]


def judge_gates(tables: Mapping[str, Mapping]) -> GateVerdict:
    """Compares each setting of gates with the paper's.

    Args:
        tables: The table of gates of each set.
    """
    rows = {name: {setting: next(iter(columns.values()), []) for setting, columns in values_in(table).items()}
            for name, table in tables.items()}
    rows = {name: found for name, found in rows.items() if found.get(PAPER)}
    settings = dict.fromkeys(setting for found in rows.values() for setting in found if setting != PAPER)
    verdicts = {setting: {name: verdict(found[setting], found[PAPER]) for name, found in rows.items()
                          if found.get(setting)} for setting in settings}
    offered = [setting for setting, found in verdicts.items() if list(found.values()).count(BETTER) >= SETS_NEEDED]
    return GateVerdict(list(rows), verdicts, offered)

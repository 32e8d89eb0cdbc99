"""What follows from the numbers: where methods cross as labels become fewer, and whether a setting of gates is better.

One rule for all: a mean is better if it is higher by more than twice the larger of the two standard deviations over
seeds. Every function works on the numbers as they are written to results.json.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import NamedTuple

from ...analysis.series import mean_and_std
from .plan import GATES, compared_with

BETTER, NOISE, WORSE = 'better', 'within the noise', 'worse'
CROSSING = (('gpt', 'lora'), ('gpt', 'full'), ('lora', 'full'), ('vpt-deep', 'full'), ('linear', 'full'))
SETS_NEEDED = 2  # on so many sets a setting of gates must be better
Rows = Mapping[str, Mapping[str, Sequence[float]]]  # values over seeds, by the name of a row and the column


class Crossing(NamedTuple):
    """How two methods compare as labels become fewer.

    Attributes:
        one: A method.
        other: Another.
        differences: Of the means, one minus other, by the percentage of the training images.
        verdicts: What one is by each, by the rule of this module.
        at: The percentages at which the means cross, on lines over their logarithm.
    """
    one: str
    other: str
    differences: dict[str, float]
    verdicts: dict[str, str]
    at: tuple[float, ...]


def verdict(one: Sequence[float], other: Sequence[float]) -> str:
    """Returns whether ``one`` is better than ``other``; values are over seeds, two of each at least."""
    (middle, std), (usual, spread) = mean_and_std(one), mean_and_std(other)
    if abs(middle - usual) <= 2 * max(std, spread):
        return NOISE
    return BETTER if middle > usual else WORSE


def values_in(table: Mapping, seeds: int) -> Rows:
    """Returns the values of a table over seeds, where there are all of them; rows are named by their last part."""
    needed = max(2, seeds)
    return {row['name'][-1]: {column: list(values.values()) for column, values in row['values'].items()
                              if len(values) >= needed} for row in table['rows']}


def crossings(table: Mapping, seeds: int) -> list[Crossing]:
    """Returns how prompts, LoRA, the head alone and full fine-tuning compare as labels become fewer.

    Args:
        table: The table of few labels.
        seeds: How many seeds a number needs.
    """
    rows, found = values_in(table, seeds), []
    for one, other in CROSSING:
        first, second = rows.get(one, {}), rows.get(other, {})
        pairs = {column: (first[column], second[column]) for column in table['columns']
                 if column in first and column in second}
        differences = {column: mean_and_std(a)[0] - mean_and_std(b)[0] for column, (a, b) in pairs.items()}
        if len(pairs) > 1:
            found.append(Crossing(one, other, differences, {column: verdict(*pair) for column, pair in pairs.items()},
                                  crossing_points(differences)))
    return found


def crossing_points(differences: Mapping[str, float]) -> tuple[float, ...]:
    """Returns the percentages at which a difference changes its sign.

    Where it is 0 at some percentages in between, the middle of these counts.

    Args:
        differences: By percentages such as '10 %', ascending.
    """
    points = [(math.log(float(column.split()[0])), value) for column, value in differences.items()]
    signed = [i for i, (_, value) in enumerate(points) if value]
    found = []
    for i, j in pairwise(signed):
        (left, before), (right, after) = points[i], points[j]
        if before * after < 0:
            zeros = [place for place, _ in points[i + 1:j]]
            found.append(math.exp(mean(zeros) if zeros else left + (right - left) * before / (before - after)))
    return tuple(found)


class GateVerdict(NamedTuple):
    """How settings of gates compare, each with one of the same optimizer; see :func:`.plan.compared_with`.

    Attributes:
        sets: The sets that were looked at.
        verdicts: By setting and set, what it is beside the one that it is compared with.
        priors: The settings whose prior is better than the lowest one on ``SETS_NEEDED`` sets at least.
        trained: The settings in which training the gates is better than holding them, on as many.
    """
    sets: list[str]
    verdicts: dict[str, dict[str, str]]
    priors: list[str]
    trained: list[str]


def judge_gates(tables: Mapping[str, Mapping], seeds: int) -> GateVerdict:
    """Compares settings of gates within one optimizer: other priors with the lowest one, held gates with trained ones.

    Args:
        tables: The table of gates of each set, all on validation images or all on test images.
        seeds: How many seeds a number needs.
    """
    rows = {name: {setting: next(iter(columns.values()), []) for setting, columns in values_in(table, seeds).items()}
            for name, table in tables.items()}
    verdicts: dict[str, dict[str, str]] = {}
    for setting, gates in GATES.items():
        other = compared_with(gates)
        verdicts[setting] = {name: verdict(found[setting], found[other.name]) for name, found in rows.items()
                             if found.get(setting) and found.get(other.name)} if other else {}
    priors = [setting for setting, found in verdicts.items()
              if GATES[setting].trained and list(found.values()).count(BETTER) >= SETS_NEEDED]
    trained = [compared_with(GATES[setting]).name for setting, found in verdicts.items()
               if not GATES[setting].trained and list(found.values()).count(WORSE) >= SETS_NEEDED]
    judged = [name for name in rows if any(name in found for found in verdicts.values())]
    return GateVerdict(judged, verdicts, priors, trained)

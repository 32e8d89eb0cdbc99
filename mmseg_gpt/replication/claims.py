"""What the paper says, and whether it holds in the replication: differences of means, by Welch's t-test over the seeds.

A difference that such a test finds at 5 % in one of many comparisons may still be chance: each claim is shown with all
its comparisons. Every function here works on the results as they are written to results.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import mean
from typing import NamedTuple

import numpy as np

HOLDS, NOISE, FAILS = 'holds', 'within the noise', 'does not hold'
LEVEL = 0.05
SELF_SUPERVISED = ('mae', 'mocov3')


class Comparison(NamedTuple):
    """Two means that a claim is about.

    Attributes:
        where: On which ViT and task.
        difference: Of the means, in points; positive where the claim says so.
        p: Of Welch's test, two-sided, times the number of things that the better was chosen from.
        verdict: ``HOLDS``, ``NOISE`` or ``FAILS``.
    """
    where: str
    difference: float
    p: float
    verdict: str


class Claim(NamedTuple):
    """A statement of the paper.

    Attributes:
        text: What it says.
        source: Where.
        comparisons: What it means here.
    """
    text: str
    source: str
    comparisons: list[Comparison]

    def count(self, verdict: str) -> int:
        """How many of its comparisons came out so."""
        return sum(comparison.verdict == verdict for comparison in self.comparisons)


def compare(where: str, better: Sequence[float], worse: Sequence[float], chosen_from: int = 1) -> Comparison:
    """Whether ``better`` is.

    Args:
        where: What is compared.
        better: Values by seed, two at least.
        worse: The same.
        chosen_from: Of how many things ``better`` is the one with the highest mean (Bonferroni).
    """
    from scipy.stats import ttest_ind
    difference = mean(better) - mean(worse)
    if len({*better}) == len({*worse}) == 1:  # no spread at all
        p = float(difference == 0)
    else:
        p = float(ttest_ind(better, worse, equal_var=False).pvalue)
    p = min(1., p * chosen_from)
    return Comparison(where, difference, p, NOISE if p >= LEVEL else HOLDS if difference > 0 else FAILS)


def claims_of(tables: Mapping[str, dict], ratios: Mapping[str, list[list[float]]]) -> list[Claim]:
    """All claims, as far as there are numbers for them.

    Args:
        tables: Of results.json.
        ratios: Selection ratios by block of each seed, by ViT and task.
    """
    def pairs(text: str, source: str, better: str, worse: str, vits: Sequence[str] = SELF_SUPERVISED) -> Claim:
        return Claim(text, source, list(methods_compared(tables, better, worse, vits)))

    claims = [
        pairs('Gated Prompt Tuning is better than VPT-shallow', 'Tables 1 to 3', 'gpt', 'vpt-shallow'),
        pairs('Gated Prompt Tuning is better than VPT-deep with as many prompts', 'Tables 1 to 3', 'gpt', 'vpt-deep'),
        pairs('Gates improve VPT-shallow', 'Figure 6', 'gates-only', 'vpt-shallow'),
        pairs('Temperatures improve it further', 'Figure 6, "in almost all cases"', 'gpt', 'gates-only'),
        pairs('Hard gates are better than VPT-shallow', 'Table 4', 'hard-gates', 'vpt-shallow', ('mae', )),
        pairs('Soft gates are better than hard ones', 'Table 4', 'gpt', 'hard-gates', ('mae', )),
        Claim('Prompts that enter at a later block are better (the best later block against the first)', 'Figure 1',
              list(later_blocks(tables['figure1']))),
        Claim('With half as many prompts it is still better than VPT-deep', 'Figure 7',
              list(half_as_many(tables['figure7']))),
        Claim('Which blocks the gates select depends on the ViT and the task (more than on the seed)', 'Figure 4',
              list(selected_blocks(ratios))),
    ]
    return [claim for claim in claims if claim.comparisons]


def rows(table: dict) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """The values of a table by row and column, where there are two seeds at least."""
    return {tuple(row['name']): {column: list(values.values()) for column, values in row['values'].items()
                                 if len(values) > 1} for row in table['rows']}


def methods_compared(tables: Mapping[str, dict], better: str, worse: str, vits: Sequence[str]
                     ) -> Iterator[Comparison]:
    """Two methods on each ViT and task."""
    for name in ('segmentation', 'classification'):
        found = rows(tables[name])
        for vit in vits:
            one, other = found.get((vit, better), {}), found.get((vit, worse), {})
            yield from (compare(f'{vit} {column}', one[column], other[column]) for column in one if column in other)


def later_blocks(table: dict) -> Iterator[Comparison]:
    """The best later first block of prompts and block 1."""
    for (vit, task), values in rows(table).items():
        later = {block: found for block, found in values.items() if block != '1'}
        if vit in SELF_SUPERVISED and later and '1' in values:
            best = max(later, key=lambda block: mean(later[block]))
            yield compare(f'{vit} {task}, block {best}', later[best], values['1'], len(later))


def half_as_many(table: dict) -> Iterator[Comparison]:
    """Gated prompts and twice as many of VPT-deep."""
    found = rows(table)
    gated, deep = found.get(('mae', 'gpt'), {}), found.get(('mae', 'vpt-deep'), {})
    for count, values in gated.items():
        if (twice := str(2 * int(count))) in deep:
            yield compare(f'{count} against {twice}', values, deep[twice])


def selected_blocks(ratios: Mapping[str, list[list[float]]], shuffles: int = 2000) -> Iterator[Comparison]:
    """Distances of selection ratios between ViTs and tasks, and between seeds, by a permutation test.

    The distance of two ratios is their total variation, in percent: how much of one would have to be moved to make the
    other of it.
    """
    runs = [(name, np.array(ratio)) for name, seeds in ratios.items() for ratio in seeds]
    pairs = list(combinations(range(len(runs)), 2))
    if len(ratios) < 2 or len(runs) < 2 * len(ratios):
        return
    distances = np.array([50 * np.abs(runs[i][1] - runs[j][1]).sum() for i, j in pairs])
    names = np.array([name for name, _ in runs])

    def excess(labels: np.ndarray) -> float:
        same = np.array([labels[i] == labels[j] for i, j in pairs])
        return distances[~same].mean() - distances[same].mean()

    rng, measured = np.random.default_rng(0), excess(names)
    as_large = sum(excess(rng.permutation(names)) >= measured for _ in range(shuffles))
    p = (as_large + 1) / (shuffles + 1)
    yield Comparison('distance between, less that within', measured, p, HOLDS if p < LEVEL else NOISE)

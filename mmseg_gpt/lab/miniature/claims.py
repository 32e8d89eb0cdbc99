"""What the paper says, and whether it holds in the miniature: differences of means, by Welch's t-test over the seeds.

The spread is that of adaptations with other seeds on the same ViTs and images. A difference that such a test finds at
5 % in one of many comparisons may still be chance: each claim is shown with all its comparisons. Every function here
works on the results as they are written to results.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import mean
from typing import NamedTuple

import numpy as np

from ...recipes.vits import SELF_SUPERVISED
from .plan import GATES, GPT, PAPER

HOLDS, NOISE, FAILS = 'holds', 'within the noise', 'does not hold'
LEVEL = 0.05
SINGLE_SCALE_COLUMN, MULTI_SCALE_COLUMN = 'mIoU (SS)', 'mIoU (MS)'  # of the same runs: claims are about the first


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


def compare(where: str, better: Sequence[float], worse: Sequence[float], chosen_from: int = 1) -> Comparison:
    """Tests whether ``better`` is better than ``worse``.

    Args:
        where: What is compared.
        better: Values by seed, two at least.
        worse: Values by seed, two at least.
        chosen_from: How many things ``better`` was chosen from by its mean (Bonferroni).
    """
    from scipy.stats import ttest_ind
    difference = mean(better) - mean(worse)
    # Without any spread there is nothing to test with.
    spread = len({*better}) > 1 or len({*worse}) > 1
    p = min(1., chosen_from * float(ttest_ind(better, worse, equal_var=False).pvalue)) if spread else 1.
    return Comparison(where, difference, p, NOISE if p >= LEVEL else HOLDS if difference > 0 else FAILS)


def claims_of(tables: Mapping[str, dict], ratios: Mapping[str, list[list[float]]], seeds: int) -> list[Claim]:
    """Returns all claims for which there are numbers of all seeds.

    Args:
        tables: Those of results.json.
        ratios: Selection ratios by block of each seed, by ViT and task.
        seeds: How many there are.
    """
    methods = {name: found for table in ('segmentation', 'classification')
               for name, found in by_place(tables[table], seeds).items()}

    def pairs(text: str, source: str, better: str, worse: str, vits: Sequence[str] = SELF_SUPERVISED,
              without: str = '') -> Claim:
        return Claim(text, source, [compare(f'{vit} {task}', methods[vit, better, task], methods[vit, worse, task])
                                    for vit, method, task in methods if vit in vits and method == better
                                    and f'{vit} {task}' != without and (vit, worse, task) in methods])

    claims = [
        pairs('Gated Prompt Tuning is better than VPT-shallow', 'Tables 1 to 3', 'gpt', 'vpt-shallow'),
        # On FGVC with MoCo v3 the paper has 83.00 and 83.12, and calls that comparable.
        pairs('Gated Prompt Tuning is better than VPT-deep with as many prompts', 'Tables 1 to 3', 'gpt', 'vpt-deep',
              without='mocov3 breeds'),
        pairs('Gates improve VPT-shallow', 'Figure 6', 'gates-only', 'vpt-shallow'),
        pairs('Temperatures improve it further', 'Figure 6, "in almost all cases"', 'gpt', 'gates-only'),
        pairs('Hard gates are better than VPT-shallow', 'Table 4', 'hard-gates', 'vpt-shallow', ('mae', )),
        pairs('Soft gates are better than hard ones', 'Table 4', 'gpt', 'hard-gates', ('mae', )),
        Claim('Prompts that enter at a later block are better (the best later block against the first)', 'Figure 1',
              list(later_blocks(tables['figure1'], seeds))),
        Claim('With half as many prompts it is still better than VPT-deep', 'Figure 7',
              list(half_as_many(tables['figure7'], seeds))),
        Claim('Which blocks the gates select depends on the ViT and on the task (more than on the seed)', 'Figure 4',
              list(selected_blocks(ratios))),
    ]
    return [claim for claim in claims if claim.comparisons]


def gate_comparisons(table: dict, seeds: int) -> list[Comparison]:
    """Compares each variant of the gates with that of the tables, and those with SGD with the paper's."""
    found = {name: values for (name, ), values in rows(table, seeds).items()}
    usual = {name: PAPER if name in GATES and GATES[name].sgd else GPT for name in found}
    return [compare(f'{name} {task}', values, found[usual[name]][task]) for name, columns in found.items()
            for task, values in columns.items() if name != usual[name] and task in found.get(usual[name], {})]


def rows(table: dict, seeds: int) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """Returns the values of a table by row and column, where all seeds have one, and there are two at least."""
    return {tuple(row['name']): {column: list(values.values()) for column, values in row['values'].items()
                                 if len(values) == seeds > 1} for row in table['rows']}


def by_place(table: dict, seeds: int) -> dict[tuple[str, str, str], list[float]]:
    """Returns the values of a table of methods by ViT, method and task; of segmentation, those at a single scale."""
    return {(vit, method, column): values for (vit, method), found in rows(table, seeds).items()
            for column, values in found.items() if column != MULTI_SCALE_COLUMN}


def later_blocks(table: dict, seeds: int) -> Iterator[Comparison]:
    """Compares the best later block at which prompts enter with block 1."""
    for (vit, task), values in rows(table, seeds).items():
        later = {block: found for block, found in values.items() if block != '1'}
        if vit in SELF_SUPERVISED and later and '1' in values:
            best = max(later, key=lambda block: mean(later[block]))
            yield compare(f'{vit} {task}, block {best}', later[best], values['1'], len(later))


def half_as_many(table: dict, seeds: int) -> Iterator[Comparison]:
    """Compares gated prompts with twice as many prompts of VPT-deep."""
    found = rows(table, seeds)
    gated, deep = found.get(('mae', 'gpt'), {}), found.get(('mae', 'vpt-deep'), {})
    for count, values in gated.items():
        if (twice := str(2 * int(count))) in deep:
            yield compare(f'{count} against {twice}', values, deep[twice])


def selected_blocks(ratios: Mapping[str, list[list[float]]]) -> Iterator[Comparison]:
    """Tests whether selection ratios differ more between ViTs (on one task) and tasks (for one ViT) than between seeds.

    Args:
        ratios: By block, of each seed, by ViT and task with a space between them.
    """
    runs = [(*name.split(' '), np.array(ratio)) for name, seeds in ratios.items() for ratio in seeds]
    for where, among, label in (('ViTs, on the same task', 1, 0), ('tasks, for the same ViT', 0, 1)):
        groups: dict[str, list[tuple[str, np.ndarray]]] = {}
        for run in runs:
            groups.setdefault(run[among], []).append((run[label], run[2]))
        yield from permuted(where, list(groups.values()))


def permuted(where: str, groups: Sequence[Sequence[tuple[str, np.ndarray]]], shuffles: int = 2000
             ) -> Iterator[Comparison]:
    """Tests distances between labels against those within, by permuting the labels of each group.

    The distance of two ratios is their total variation, in percent: how much of one would have to be moved to make the
    other of it.

    Args:
        where: What is compared.
        groups: Of labels and ratios; only those of the same group are compared.
        shuffles: How many permutations.
    """
    pairs = [(group, i, j) for group, members in enumerate(groups) for i, j in combinations(range(len(members)), 2)]
    distances = np.array([50 * np.abs(groups[group][i][1] - groups[group][j][1]).sum() for group, i, j in pairs])
    names = [np.array([name for name, _ in members]) for members in groups]

    def same(labels: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([labels[group][i] == labels[group][j] for group, i, j in pairs], bool)

    def excess(labels: Sequence[np.ndarray]) -> float:
        return distances[~same(labels)].mean() - distances[same(labels)].mean()

    if not 0 < same(names).sum() < len(pairs):
        return  # one seed, or one label
    rng, measured = np.random.default_rng(0), excess(names)
    as_large = sum(excess([rng.permutation(found) for found in names]) >= measured for _ in range(shuffles))
    p = (as_large + 1) / (shuffles + 1)
    yield Comparison(where, measured, p, HOLDS if p < LEVEL else NOISE)

"""What is chosen, all of it on validation images, and the runs by which it is.

Learning rates are chosen with a seed of their own. Of one grid for all methods the second, the fourth and so on are
tried, and then the two beside the best of these. Which methods get another head, and which one aims high, is chosen by
the mean over the seeds of the results.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from ...recipes.methods import METHODS
from ..rates import SEARCH_SEED, Rates, best_of
from ..runs import FINISHED, Run, diverged, outcomes
from .plan import LINEAR, Chosen, StudyPlan, StudyVariant

OTHER_HEAD = 'setr_pup'
OTHER_HEAD_RATES = (3e-4, 1e-3)  # of convolutions, which take smaller steps than a linear layer
FEW_BEST = 3  # so many methods get the other head
AIM_SCALE = 2
AIM_HEADS = {'linear': None, 'linear_4': None, 'segmenter': 1e-3}  # with rates; None is that of the linear head
Do = Callable[[Sequence[Run], str], None]


class StudyChoices(NamedTuple):
    """What has been chosen by now.

    Attributes:
        rates: Learning rates of each method with the first head.
        others: Learning rates of the best few methods with the other head.
        aim: What aims high, with its learning rates.
        searched: The runs by which it was chosen, as far as they are known.
        open: What is still to be chosen, in words.
    """
    rates: Chosen
    others: Chosen
    aim: tuple[StudyVariant, Rates] | None
    searched: list[Run]
    open: list[str]

    @property
    def known(self) -> dict[StudyVariant, Rates]:
        """All variants that have been chosen, with their learning rates."""
        return {**self.rates, **self.others, **dict([self.aim] if self.aim else [])}


def choose(plan: StudyPlan, parts: Collection[str], do: Do = lambda runs, title: None) -> StudyChoices:
    """Chooses what some parts of the study need.

    Args:
        plan: The plan of the runs.
        parts: Names of the parts.
        do: Is called with the runs of each step and its title, before it is chosen by what has finished of them.
    """
    rates, searched = choose_rates(plan, do)
    missing = [f'the learning rates of {method}' for method in plan.preset.methods if StudyVariant(method) not in rates]
    others, aim = {}, None
    if not missing and {'heads', 'aim'} & set(parts):
        ranking = best_methods(plan, rates, do)
        if 'heads' in parts:
            others, runs = choose_other_head(plan, rates, ranking, do)
            searched += runs
            missing += [] if others else [f'what gets the head {OTHER_HEAD}']
        if 'aim' in parts:
            aim, runs = choose_aim(plan, rates, ranking, do)
            searched += runs
            missing += [] if aim else ['what aims high']
    return StudyChoices(rates, others, aim, searched, missing)


def choose_rates(plan: StudyPlan, do: Do) -> tuple[Chosen, list[Run]]:
    """Returns the best learning rates: the head's, and with that each method's; and the runs of the search."""
    heads = {rates: search(plan, LINEAR, rates) for rates in map(Rates, plan.preset.heads)}
    do([*heads.values()], 'learning rates of the head')
    searched, score = [*heads.values()], plan.photographs.score
    head = best_of(heads, outcomes(searched, plan.runs), score)
    if head is None:
        return {}, searched
    variants = [StudyVariant(method) for method in plan.preset.methods if method != LINEAR.method]
    tried = {variant: {rates: search(plan, variant, rates) for rates in (
        head._replace(backbone=rate) for rate in plan.preset.rates[1::2])} for variant in variants}
    for title in ('every other learning rate', 'learning rates beside the best'):
        runs = [run for found in tried.values() for run in found.values()]
        do(runs, title)
        records = outcomes(runs, plan.runs)
        best = {variant: best_of(found, records, score) for variant, found in tried.items()}
        if title == 'every other learning rate':
            for variant, rates in best.items():
                tried[variant] |= {} if rates is None else {
                    each: search(plan, variant, each) for each in beside(plan.preset.rates, rates)}
    return {LINEAR: head, **{variant: rates for variant, rates in best.items() if rates}}, searched + runs


def beside(grid: Sequence[float], best: Rates) -> list[Rates]:
    """Returns learning rates with those of the grid that are beside the best one."""
    at = grid.index(best.backbone)
    return [best._replace(backbone=rate) for rate in (*grid[max(at - 1, 0):at], *grid[at + 1:at + 2])]


def search(plan: StudyPlan, variant: StudyVariant, rates: Rates) -> Run:
    """Returns a run of a search."""
    run = plan.run(variant, rates, searching=True)
    return run._replace(name=f'search_{run.name}').with_seed(SEARCH_SEED)


def with_seeds(plan: StudyPlan, runs: Sequence[Run]) -> list[Run]:
    """Returns runs with each seed of the results."""
    return [run.with_seed(seed) for seed in plan.preset.seeds for run in runs]


def best_methods(plan: StudyPlan, rates: Chosen, do: Do) -> list[StudyVariant] | None:
    """Returns the methods in the order of their mean results on validation images; None where some are missing.

    Those of which a seed diverged are last.
    """
    runs = {variant: with_seeds(plan, [plan.run(variant, each)]) for variant, each in rates.items()}
    every = with_seeds(plan, [plan.run(variant, each) for variant, each in rates.items()])
    do(every, 'methods')
    records = outcomes(every, plan.runs)
    values = {variant: numbers(found, records, plan.photographs.score) for variant, found in runs.items()}
    if not all(has_ended(records.get(run.name, {})) for run in every):
        return None
    return sorted(values, key=lambda variant: (
        len(values[variant]) < len(plan.preset.seeds), -mean(values[variant] or [0.])))


def has_ended(record: Mapping) -> bool:
    """Returns whether a training has finished, or has diverged, which is a result too."""
    return record.get('status') == FINISHED or diverged(record)


def numbers(runs: Sequence[Run], records: Mapping[str, dict], number: str) -> list[float]:
    """Returns a number of those runs that have finished."""
    found = (records.get(run.name, {}) for run in runs)
    return [record['numbers'][number] for record in found if record.get('status') == FINISHED]


def choose_other_head(plan: StudyPlan, rates: Chosen, ranking: Sequence[StudyVariant] | None,
                      do: Do) -> tuple[Chosen, list[Run]]:
    """Returns the best few methods with the other head and their learning rates: its own, and the methods' as before.

    The rate of the head is the best one of the head alone.
    """
    alone = StudyVariant('linear', OTHER_HEAD)
    tried = {each: search(plan, alone, each) for each in map(Rates, OTHER_HEAD_RATES)}
    do([*tried.values()], f'learning rates of the head {OTHER_HEAD}')
    head = best_of(tried, outcomes([*tried.values()], plan.runs), plan.photographs.score)
    best = [] if head is None or ranking is None else ranking[:FEW_BEST]
    return {StudyVariant(variant.method, OTHER_HEAD): head._replace(backbone=rates[variant].backbone)
            for variant in best}, [*tried.values()]


def choose_aim(plan: StudyPlan, rates: Chosen, ranking: Sequence[StudyVariant] | None, do: Do
               ) -> tuple[tuple[StudyVariant, Rates] | None, list[Run]]:
    """Returns what aims high: the best method that trains a small part of the ViT, on larger images.

    In segmentation, several heads are tried with it.
    """
    if ranking is None:
        return None, []
    best = next(variant for variant in ranking if METHODS[variant.method].adapts)
    known = rates[best]
    if not plan.is_segmentation:
        return (StudyVariant(best.method, scale=AIM_SCALE), known), []
    candidates = {(StudyVariant(best.method, head, AIM_SCALE), known._replace(head=rate or known.head)): None
                  for head, rate in AIM_HEADS.items()}
    tried = {candidate: search(plan, *candidate) for candidate in candidates}
    do([*tried.values()], 'heads for large images')
    return best_of(tried, outcomes([*tried.values()], plan.runs), plan.photographs.score), [*tried.values()]

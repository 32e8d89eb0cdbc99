"""From photographs to results, step by step; each step does what is left of it."""

from collections.abc import Callable, Sequence

from ..runs import Run, outcomes, prepare, run_all
from .plan import Chosen, Plan
from .sets import write_lists

FRACTIONS = (0.1, 0.25)
CarryOut = Callable[[Sequence[Run], str], None]


def do_what_is_left(plan: Plan, jobs: int, retry_failed: bool, overwrite: bool) -> None:
    """Searches and adapts.

    Args:
        plan: The plan of the runs.
        jobs: How many runs are carried out at once.
        retry_failed: Give runs that failed another chance.
        overwrite: Remove runs of other settings, and start them over.

    Raises:
        SystemExit: something is missing, or there are runs of other settings.
    """
    write_lists(plan.photographs, plan.data, plan.lists, FRACTIONS, plan.preset.seeds, plan.preset.images)
    plan.write_configs(plan.variants())

    def carry_out(runs: Sequence[Run], title: str) -> None:
        prepare(runs, plan.runs, retry_failed, overwrite)
        run_all(runs, plan.runs, title=title, jobs=jobs, again=retry_failed, forked=True)

    chosen = choose_all(plan, carry_out)
    carry_out([plan.run(variant, rates).with_seed(seed) for seed in plan.preset.seeds
               for variant, rates in chosen.items()], 'methods')


def choose_all(plan: Plan, before: CarryOut = lambda runs, title: None) -> Chosen:
    """Returns the learning rates that are best on the validation images: the head's, and with that the others'.

    Args:
        plan: The plan of the runs.
        before: Is called with the runs of each step and its title, before it is chosen by what has finished of them.
    """
    chosen, records = {}, {}
    for title in ('learning rates of the head', 'every other learning rate', 'learning rates beside the best'):
        runs = [run for found in plan.searches(records, chosen).values() for run in found.values()]
        before(runs, title)
        records = outcomes(runs, plan.runs)
        chosen = plan.choose(records, chosen)
    return chosen

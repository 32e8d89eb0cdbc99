"""The tables and figures of a study: which runs give which number."""

from collections.abc import Collection

from ...recipes.methods import tokens_per_set
from ...recipes.vits import VITS
from ..gates import PRIOR, SGD_HEAD
from ..rates import Rates
from ..runs import Run, with_settings
from ..suite.plans import BLOCK, PROMPTS, Entry, Table, each
from .choices import StudyChoices
from .plan import GATES, GateSetting, StudyPlan, StudyVariant
from .sets import list_file

FRACTIONS = (0.1, 0.25)  # of the training images
FEW_LABELS = ('linear', 'vpt-deep', 'gpt', 'bias', 'lora', 'full')
STARTS = (1, 4, 7, 10, 12)  # blocks at which prompts enter in Figure 1, counted from 1
COUNTS = {'gpt': (1, 4, 12, 24, 48), 'vpt-deep': (12, 24, 48)}  # of prompts in Figure 7
SEGMENTATION = ('methods', 'labels', 'gates', 'heads', 'aim')
CLASSIFICATION = ('methods', 'labels', 'gates', 'figures', 'aim')


class SeededRun(Run):
    """A run whose training images are a part that its seed has drawn: SEED in its settings is the seed."""

    def with_seed(self, seed: int) -> 'Run':
        run = super().with_seed(seed)
        return run._replace(settings=tuple(setting.replace('SEED', str(seed)) for setting in run.settings))


def parts_of(plan: StudyPlan) -> tuple[str, ...]:
    """Returns the parts of a study, in the order in which they are carried out."""
    return SEGMENTATION if plan.is_segmentation else CLASSIFICATION


def asked_parts(plan: StudyPlan, parts: Collection[str] | None = None) -> tuple[str, ...]:
    """Returns the parts of a study that were asked for, or all, in the order in which they are carried out.

    Raises:
        SystemExit: the study of this set has no such part.
    """
    known = parts_of(plan)
    if absent := [part for part in parts or () if part not in known]:
        raise SystemExit(f'--parts {absent[0]}: the study of {plan.name} has the parts {", ".join(known)}')
    return tuple(part for part in known if not parts or part in parts)


def tables_of(plan: StudyPlan, choices: StudyChoices, parts: Collection[str]) -> dict[str, Table]:
    """Returns the tables of some parts, as far as their runs are chosen."""
    made = dict(methods=[methods], labels=[few_labels], gates=[gate_variants], figures=[start_blocks, prompt_counts],
                heads=[other_head], aim=[aim])
    return {make.__name__: make(plan, choices) for part in parts_of(plan) if part in parts for make in made[part]}


def entry(plan: StudyPlan, variant: StudyVariant, run: Run, row: tuple[str, ...], column: str) -> Entry:
    """Returns the entry for a number of a table."""
    return Entry(plan.vit, variant.method, plan.name, run, row, column, plan.photographs.score)


def methods(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns the comparison of methods."""
    entries = [entry(plan, variant, plan.run(variant, rates), (variant.method, ), plan.photographs.title)
               for variant, rates in choices.rates.items()]
    return Table(f'{plan.photographs.title}: all methods', ('METHOD', ), each([plan.photographs.title]), entries)


def few_labels(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns results with fewer training images, at the learning rates and iterations of all of them."""
    entries = []
    for variant, rates in choices.rates.items():
        for fraction in (*FRACTIONS, 1.) if variant.method in FEW_LABELS else ():
            run = plan.run(variant, rates)
            if fraction < 1:
                file = list_file(plan.lists, 'train', fraction, 'SEED')
                run = SeededRun(*run)._replace(name=f'{run.name}_labels_{100 * fraction:g}', settings=(
                    *run.settings, f'train_dataloader.dataset.ann_file={file}'))
            entries.append(entry(plan, variant, run, (variant.method, ), f'{100 * fraction:g} %'))
    columns = each(f'{100 * fraction:g} %' for fraction in (*FRACTIONS, 1.))
    return Table(f'{plan.photographs.title}: a part of the training images', ('METHOD', ), columns, entries)


def gate_variants(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns what priors, optimizers and the training of gates do."""
    known, entries = choices.rates.get(StudyVariant('gpt')), []
    for name, gates in GATES.items() if known else ():
        variant, rates = StudyVariant(name), Rates(SGD_HEAD, plan.photographs.sgd) if gates.sgd else known
        same = StudyVariant('gpt') if gates == GateSetting(PRIOR) else variant
        entries.append(entry(plan, variant, plan.run(same, rates), (name, ), plan.photographs.title))
    return Table(f'{plan.photographs.title}: do the gates matter?', ('GATES', ), each([plan.photographs.title]),
                 entries)


def start_blocks(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns Figure 1: VPT-shallow with prompts that enter later."""
    variant, entries = StudyVariant('vpt-shallow'), []
    if variant in choices.rates:
        first = plan.run(variant, choices.rates[variant])
        entries = [entry(plan, variant, first if block == 1 else with_settings(first, start=block - 1),
                         (variant.method, ), str(block)) for block in STARTS]
    return Table(f'{plan.photographs.title}: accuracy by the first block with prompts', ('METHOD', ),
                 each(map(str, STARTS)), entries, x=BLOCK)


def prompt_counts(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns Figure 7: results by the number of prompts."""
    entries = []
    for method, counts in COUNTS.items():
        variant = StudyVariant(method)
        for count in counts if variant in choices.rates else ():
            number = tokens_per_set(method, count, VITS[plan.vit].blocks)
            run = plan.run(variant, choices.rates[variant])
            run = run if count == plan.preset.prompts else with_settings(run, prompts=number)
            entries.append(entry(plan, variant, run, (method, ), str(count)))
    every = sorted({count for counts in COUNTS.values() for count in counts})
    return Table(f'{plan.photographs.title}: accuracy by the number of prompts', ('METHOD', ), each(map(str, every)),
                 entries, x=PROMPTS)


def other_head(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns the best few methods with another head."""
    entries = [entry(plan, variant, plan.run(variant, rates), (variant.head_title, variant.method),
                     plan.photographs.title)
               for variant, rates in choices.others.items()]
    return Table(f'{plan.photographs.title}: another head', ('HEAD', 'METHOD'), each([plan.photographs.title]), entries)


def aim(plan: StudyPlan, choices: StudyChoices) -> Table:
    """Returns the best method on larger images, in a longer training."""
    entries = []
    if choices.aim:
        variant, rates = choices.aim
        entries = [entry(plan, variant, plan.run(variant, rates), (variant.head_title, variant.method),
                         plan.photographs.title)]
    return Table(f'{plan.photographs.title}: larger images, and longer', ('HEAD', 'METHOD'),
                 each([plan.photographs.title]), entries)

"""The tables and figures of the miniature: which runs, with which learning rates, give which number."""


from ...recipes.methods import METHODS, tokens_per_set
from ...recipes.vits import SELF_SUPERVISED
from ..rates import MIOU, Rates
from ..runs import Run, with_settings
from ..suite.plans import BLOCK, PROMPTS, Entry, Table, each
from .claims import MULTI_SCALE_COLUMN, SINGLE_SCALE_COLUMN
from .plan import CLASSIFICATION, DEPTH, GATE_TASKS, GPT, Adaptation, Chosen, Plan, score

MULTI_SCALE = 'tta/mIoU'


def tables_of(plan: Plan, chosen: Chosen) -> dict[str, Table]:
    """Returns all tables and figures of runs, as far as learning rates are chosen."""
    return dict(segmentation=segmentation(plan, chosen), classification=classification(plan, chosen),
                figure1=start_blocks(plan, chosen), figure4=selections(plan, chosen),
                figure7=prompt_counts(plan, chosen), gates=gate_variants(plan, chosen))


def segmentation(plan: Plan, chosen: Chosen) -> Table:
    """Returns the counterpart of Table 3, with all methods."""
    columns = {SINGLE_SCALE_COLUMN: MIOU, MULTI_SCALE_COLUMN: MULTI_SCALE}
    entries = [entry(cell, plan.run(cell, rates), (cell.vit, cell.method), column, number)
               for cell, rates in chosen.items() if cell.task == 'scenes' and cell.method in METHODS
               for column, number in columns.items()]
    return Table('Segmentation: mIoU on the drawn scenes', ('SSL', 'METHOD'), each(columns), entries)


def classification(plan: Plan, chosen: Chosen) -> Table:
    """Returns the counterpart of Tables 1 and 2, with all methods."""
    entries = [entry(cell, plan.run(cell, rates), (cell.vit, cell.method), cell.task)
               for cell, rates in chosen.items() if cell.task in CLASSIFICATION and cell.method in METHODS]
    return Table('Classification: accuracy', ('SSL', 'METHOD'), each(CLASSIFICATION), entries)


def start_blocks(plan: Plan, chosen: Chosen) -> Table:
    """Returns Figure 1: VPT-shallow with prompts that enter later."""
    entries = []
    for cell, rates in chosen.items():
        if cell.method == 'vpt-shallow' and cell.task in CLASSIFICATION:
            for block in plan.preset.starts:
                run = plan.run(cell, rates) if block == 1 else with_settings(plan.run(cell, rates), start=block - 1)
                entries.append(entry(cell, run, (cell.vit, cell.task), str(block)))
    return Table('Figure 1 in miniature. Accuracy of VPT-shallow by the first block with prompts', ('SSL', 'TASK'),
                 each(map(str, plan.preset.starts)), entries, x=BLOCK, panels='TASK')


def selections(plan: Plan, chosen: Chosen) -> Table:
    """Returns Figure 4: gated prompts at one learning rate, as a higher one alone makes gates differ more."""
    entries = []
    for cell, rates in chosen.items():
        if cell.method == 'gpt' and cell.vit in SELF_SUPERVISED:
            run = plan.run(cell, Rates(rates.head, plan.preset.common))
            entries.append(entry(cell, run, (cell.vit, cell.task), score(cell.task)))
    return Table('Figure 4 in miniature. Selection ratios of Gated Prompt Tuning', ('SSL', 'TASK'),
                 each(map(score, GATE_TASKS)), entries)


def prompt_counts(plan: Plan, chosen: Chosen) -> Table:
    """Returns Figure 7, on the fine-grained task."""
    entries = []
    for method, counts in plan.preset.counts.items():
        cell = Adaptation('breeds', 'mae', method)
        for count in counts if cell in chosen else ():
            share = tokens_per_set(method, count, DEPTH)
            run = plan.run(cell, chosen[cell])
            run = run if count == plan.preset.prompts else with_settings(run, prompts=share)
            entries.append(entry(cell, run, ('mae', method), str(count)))
    every = sorted({count for counts in plan.preset.counts.values() for count in counts})
    return Table('Figure 7 in miniature. Accuracy on breeds by the number of prompts', ('SSL', 'METHOD'),
                 each(map(str, every)), entries, x=PROMPTS)


def gate_variants(plan: Plan, chosen: Chosen) -> Table:
    """Returns the table of what priors and learning rates do to the gates, on the MAE ViT."""
    entries = []
    for name in (GPT, *plan.preset.gates):
        for task in GATE_TASKS:
            cell = Adaptation(task, 'mae', 'gpt' if name == GPT else name)
            if cell in chosen:
                entries.append(entry(cell, plan.run(cell, chosen[cell]), (name, ), task))
    return Table('Do the gates move? Gated Prompt Tuning on the MAE ViT', ('GATES', ), each(GATE_TASKS), entries)


def entry(cell: Adaptation, run: Run, row: tuple[str, ...], column: str, number: str = '') -> Entry:
    """Returns the entry for a number of a table."""
    return Entry(cell.vit, cell.method, cell.task, run, row, column, number or score(cell.task))

"""What has been measured, as plain data: everything that is written and drawn is made from this."""

import json
from collections.abc import Callable, Mapping, Sequence

from ... import __version__
from ...resources import command_of
from ..gates import gates_of, ratios_of
from ..provenance import origins
from ..rates import SEARCH_SEED
from ..runs import FAILED, FINISHED, Run, diverged, outcomes
from ..suite.plans import Table, runs_in
from ..suite.tables import as_data
from .claims import claims_of
from .plan import Adaptation, Chosen, Plan, score
from .tables import tables_of

COMMAND = command_of('replicate')


def gather(plan: Plan) -> dict:
    """Returns all results of the runs that have finished."""
    chosen, searched = choose_all(plan)
    tables = tables_of(plan, chosen)
    reported = [*plan.pretrainings(), *runs_in(tables.values(), plan.preset.seeds)]
    records = outcomes([*searched, *reported], plan.runs)
    shown = {name: as_data(table, plan.preset.seeds, records) for name, table in tables.items()}
    ratios = selection_ratios(plan, tables['figure4'], records)
    return dict(
        about=about(plan, searched, reported, records),
        tables=shown,
        parameters=parameters(plan, chosen, records),
        rates=validation(plan, chosen, records),
        moved=gates_moved(plan, chosen, tables['gates'], records),
        selection_ratios=ratios,
        claims=[claim._asdict() | dict(comparisons=[c._asdict() for c in claim.comparisons])
                for claim in claims_of(shown, ratios, len(plan.preset.seeds))])


def choose_all(plan: Plan, before: Callable[[list[Run], str], None] = lambda runs, title: None
               ) -> tuple[Chosen, list[Run]]:
    """Returns the learning rates that are best on the validation images: the head's, and with that the others'.

    Args:
        plan: The plan of the runs.
        before: Is called with the runs of each step and its title, before it is chosen by what has finished of them.

    Returns:
        What has been chosen, and the runs of the search that are known by now.
    """
    chosen: Chosen = {}
    for title in ('learning rates of heads', 'learning rates'):
        runs = [run for found in plan.searches(chosen).values() for run in found.values()]
        before(runs, title)
        chosen = plan.choose(outcomes(runs, plan.runs), chosen)
    return chosen, runs


def about(plan: Plan, searched: Sequence[Run], reported: Sequence[Run], records: Mapping[str, dict]) -> dict:
    """Returns how and with what was measured. A run of the search that diverged has ended as it should."""
    statuses = [FINISHED if diverged(record := records.get(run.name, {})) else record.get('status')
                for run in searched]
    statuses += [records.get(run.name, {}).get('status') for run in reported]
    preset = plan.preset
    return dict(
        command=COMMAND + (' --quick' if preset.name == 'quick' else ''), preset=preset.name, version=__version__,
        runs=len(statuses), finished=statuses.count(FINISHED), failed=statuses.count(FAILED),
        hours=round(sum(record.get('seconds', 0) for record in records.values()) / 3600, 2),
        **origins(record['made_with'] for record in records.values() if record.get('status') == FINISHED),
        seeds=list(preset.seeds), search_seed=SEARCH_SEED,
        images={name: dict(splits) for name, splits in preset.images.items()}, pretraining=dict(preset.pretraining),
        iterations=dict(preset.iterations), prompts=preset.prompts, heads=list(preset.heads), rates=list(preset.rates),
        common=preset.common)


def parameters(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> dict[str, int]:
    """Returns how many parameters each method trains in the backbone."""
    found = {}
    for cell, rates in chosen.items():
        run = plan.run(cell, rates).with_seed(plan.preset.seeds[0])
        if cell.method not in found and cell.task == 'breeds' and finished(run, records):
            metrics = json.loads((plan.runs / run.name / 'metrics.json').read_text())
            found[cell.method] = metrics['parameters']['trained']
    return {method: trained - found['linear'] for method, trained in found.items()} if 'linear' in found else {}


def validation(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> list[dict]:
    """Returns what each learning rate gave on the validation images, None if it diverged, and which was chosen."""
    heads = {cell: rates for cell, rates in chosen.items() if cell.method == 'linear'}
    found = []
    for cell, runs in plan.searches(heads).items():
        if best := chosen.get(cell):
            tried = {rates.head if best.backbone is None else rates.backbone: records[run.name]
                     for rates, run in runs.items()}
            found.append(dict(cell._asdict(), head=best.head, backbone=best.backbone, validation={
                f'{rate:g}': record.get('numbers', {}).get(score(cell.task)) for rate, record in tried.items()}))
    return found


def finished(run: Run, records: Mapping[str, dict]) -> bool:
    """Returns whether a run has finished."""
    return records.get(run.name, {}).get('status') == FINISHED


def gates_moved(plan: Plan, chosen: Chosen, table: Table, records: Mapping[str, dict]) -> list[dict]:
    """Returns how far gates went from their prior, the largest change of gamma, in each run of the table 'gates'."""
    found = []
    for entry in table.entries:
        runs = {seed: entry.run.with_seed(seed) for seed in plan.preset.seeds}
        moves = {str(seed): gates_of(run, plan.runs).moved for seed, run in runs.items() if finished(run, records)}
        if moves:
            rate = chosen[Adaptation(entry.task, entry.vit, entry.method)].backbone
            found.append(dict(gates=entry.row[0], task=entry.task, rate=rate, moved=moves))
    return found


def selection_ratios(plan: Plan, table: Table, records: Mapping[str, dict]) -> dict[str, list[list[float]]]:
    """Returns the selection ratio of each block before the last, for each seed, by ViT and task.

    What lacks a seed is left out, and so are runs whose gates have hardly moved: their ratio is that of their prior.
    """
    found = {}
    for entry in table.entries:
        if ratios := ratios_of([entry.run.with_seed(seed) for seed in plan.preset.seeds], records, plan.runs):
            found[' '.join(entry.row)] = ratios
    return found

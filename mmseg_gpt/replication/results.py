"""What has been measured, as plain data: everything that is written and drawn is made from this."""

import json
from collections.abc import Callable, Mapping, Sequence

from .. import __version__
from ..analysis.gates import MOVED, GateReport, read_checkpoint, selection_ratio
from ..suite.execute import FAILED, FINISHED, outcomes, trained_checkpoint
from ..suite.plans import Table
from ..suite.runs import Run
from ..suite.tables import measured, rows_of
from .claims import claims_of
from .plan import SEARCH_SEED, Chosen, Plan, score
from .tables import gate_variants, tables_of, with_seeds

COMMAND = 'python tools/replicate.py'


def gather(plan: Plan) -> dict:
    """All results of the runs that have finished."""
    chosen, searched = choose_all(plan)
    tables = tables_of(plan, chosen)
    runs = [*plan.pretrainings(), *searched, *with_seeds(tables.values(), plan.preset.seeds)]
    records = outcomes(runs, plan.runs)
    shown = {name: as_data(table, plan.preset.seeds, records) for name, table in tables.items()}
    ratios = selection_ratios(plan, chosen, records)
    return dict(
        about=about(plan, runs, records),
        tables=shown,
        parameters=parameters(plan, chosen, records),
        rates=rates_of(plan, chosen, records),
        moved=gates_moved(plan, chosen, records),
        selection_ratios=ratios,
        claims=[claim._asdict() | dict(comparisons=[c._asdict() for c in claim.comparisons])
                for claim in claims_of(shown, ratios, len(plan.preset.seeds))])


def choose_all(plan: Plan, before: Callable[[list[Run], str], None] = lambda runs, title: None
               ) -> tuple[Chosen, list[Run]]:
    """The learning rates that are best on the validation images: the head's, and with that the others'.

    Args:
        plan: Of the runs.
        before: Is called with the runs of each step and its title, before it is chosen by what has finished of them.

    Returns:
        tuple: What has been chosen, and the runs of the search that are known by now.
    """
    chosen: Chosen = {}
    for title in ('learning rates of heads', 'learning rates'):
        runs = [run for found in plan.searches(chosen).values() for run in found.values()]
        before(runs, title)
        chosen = plan.choose(outcomes(runs, plan.runs), chosen)
    return chosen, runs


def about(plan: Plan, runs: Sequence[Run], records: Mapping[str, dict]) -> dict:
    """How and with what it was measured."""
    statuses = [records.get(run.name, {}).get('status') for run in runs]
    origins = [record['made_with'] for record in records.values() if record.get('status') == FINISHED]
    preset = plan.preset
    return dict(
        command=COMMAND + (' --quick' if preset.name == 'quick' else ''), preset=preset.name, version=__version__,
        runs=len(runs), finished=statuses.count(FINISHED), failed=statuses.count(FAILED),
        hours=round(sum(record.get('seconds', 0) for record in records.values()) / 3600, 2),
        **{key: sorted({str(origin[key]) for origin in origins}) for key in ('device', 'commit', 'python')},
        versions=sorted({f'{name} {version}' for origin in origins for name, version in origin['versions'].items()}),
        seeds=list(preset.seeds), search_seed=SEARCH_SEED,
        images={name: dict(splits) for name, splits in preset.images.items()}, pretraining=dict(preset.pretraining),
        iterations=dict(preset.iterations), prompts=preset.prompts, heads=list(preset.heads), rates=list(preset.rates))


def as_data(table: Table, seeds: Sequence[int], records: Mapping[str, dict]) -> dict:
    """A table with the value of every seed."""
    cells = measured(table.entries, seeds, records)
    return dict(
        title=table.title, labels=list(table.labels), columns=list(table.columns), x=table.x, panels=table.panels,
        rows=[dict(name=list(row), values={column: {str(seed): value for seed, value in cell.values.items()}
                                           for (at, column), cell in cells.items() if at == row and cell.values})
              for row in rows_of(table)])


def parameters(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> dict[str, int]:
    """How many parameters a method trains in the backbone, by method."""
    found = {}
    for cell, rates in chosen.items():
        run = plan.run(cell, rates).with_seed(plan.preset.seeds[0])
        if cell.method not in found and cell.task == 'breeds' and finished(run, records):
            metrics = json.loads((plan.runs / run.name / 'metrics.json').read_text())
            found[cell.method] = metrics['parameters']['trained']
    head = found.get('linear', 0)
    return {method: trained - head for method, trained in found.items()}


def rates_of(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> list[dict]:
    """The search: what each learning rate gave on the validation images, and which was chosen."""
    heads = {cell: rates for cell, rates in chosen.items() if cell.method == 'linear'}
    found = []
    for cell, runs in plan.searches(heads).items():
        values = {rates: records[run.name]['numbers'][score(cell.task)] for rates, run in runs.items()
                  if finished(run, records)}
        if cell in chosen:
            best = chosen[cell]
            tried = {rates.head if best.backbone is None else rates.backbone: value for rates, value in values.items()}
            found.append(dict(cell._asdict(), head=best.head, backbone=best.backbone,
                              validation={f'{rate:g}': value for rate, value in tried.items()}))
    return found


def finished(run: Run, records: Mapping[str, dict]) -> bool:
    """Whether a run has."""
    return records.get(run.name, {}).get('status') == FINISHED


def gates_moved(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> list[dict]:
    """How far gates went from their prior: the largest change of gamma in each run of the table 'gates'."""
    found = []
    for entry in gate_variants(plan, chosen).entries:
        runs = {seed: entry.run.with_seed(seed) for seed in plan.preset.seeds}
        moves = {str(seed): report_of(plan, run).moved for seed, run in runs.items() if finished(run, records)}
        if moves:
            found.append(dict(gates=entry.row[0], task=entry.task, moved=moves))
    return found


def report_of(plan: Plan, run: Run) -> GateReport:
    """The gates of a finished run."""
    return read_checkpoint(trained_checkpoint(run, plan.runs / run.name), run.name)


def selection_ratios(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> dict[str, list[list[float]]]:
    """Of Gated Prompt Tuning, by ViT and task: the ratio of each block before the last, for each seed.

    Where gates have hardly moved, their ratio is that of their prior: such cells are left out.
    """
    found = {}
    for cell, rates in chosen.items():
        runs = [plan.run(cell, rates).with_seed(seed) for seed in plan.preset.seeds] if cell.method == 'gpt' else []
        reports = [report_of(plan, run) for run in runs if finished(run, records)]
        if reports and min(report.moved for report in reports) >= MOVED:
            found[f'{cell.vit} {cell.task}'] = [selection_ratio(report.gates).tolist() for report in reports]
    return found

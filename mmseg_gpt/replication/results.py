"""What has been measured, as plain data: everything that is written and drawn is made from this."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..analysis.gates import movement, read_checkpoint, selection_ratio, sigmoid
from ..benchmark.machine import describe
from ..sample.folder import available_cpus
from ..suite.execute import FAILED, FINISHED, outcomes, trained_checkpoint
from ..suite.plans import Table
from ..suite.runs import Run
from ..suite.tables import measured, rows_of
from .claims import claims_of
from .plan import GATES, Chosen, Plan, score, with_seeds

COMMAND = 'python tools/replicate.py'


def gather(plan: Plan) -> dict:
    """All results of the runs that have finished."""
    chosen, searched = choose_all(plan)
    tables = plan.tables(chosen)
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
                for claim in claims_of(shown, ratios)])


def choose_all(plan: Plan) -> tuple[Chosen, list[Run]]:
    """The learning rates that have been chosen, and the runs of the search that are known by now."""
    chosen: Chosen = {}
    for _ in range(2):  # the head's, and with that the others'
        runs = [run for found in plan.searches(chosen).values() for run in found.values()]
        chosen = plan.choose(outcomes(runs, plan.runs), chosen)
    return chosen, runs


def about(plan: Plan, runs: Sequence[Run], records: Mapping[str, dict]) -> dict:
    """How and with what it was measured."""
    machine = describe(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))
    statuses = [records.get(run.name, {}).get('status') for run in runs]
    preset = plan.preset
    return dict(
        command=COMMAND + (' --quick' if preset.name == 'quick' else ''), version=__version__,
        runs=len(runs), finished=statuses.count(FINISHED), failed=statuses.count(FAILED),
        hours=round(sum(record.get('seconds', 0) for record in records.values()) / 3600, 2),
        device=machine['device'], cpus=available_cpus(), python=machine['python'], date=machine['date'],
        versions=describe_versions(), seeds=list(preset.seeds),
        images={name: dict(splits) for name, splits in preset.images.items()}, pretraining=dict(preset.pretraining),
        iterations=dict(preset.iterations), prompts=preset.prompts, heads=list(preset.heads), rates=list(preset.rates))


def describe_versions() -> dict[str, str]:
    """Of the packages that numbers depend on."""
    from ..sample.results import installed_versions
    return installed_versions('torch', 'mmengine', 'mmseg', 'mmpretrain', 'numpy', 'scipy')


def as_data(table: Table, seeds: Sequence[int], records: Mapping[str, dict]) -> dict:
    """A table with the value of every seed."""
    cells = measured(table.entries, seeds, records)
    return dict(
        title=table.title, labels=list(table.labels), columns=list(table.columns), x=table.x, panels=table.panels,
        rows=[dict(name=list(row), values={column: {str(seed): value for seed, value in cell.values.items()}
                                           for (at, column), cell in cells.items() if at == row and cell.values})
              for row in rows_of(table)])


def parameters(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> dict[str, dict[str, int]]:
    """How many parameters a method trains in the backbone, and of how many, by method."""
    found = {}
    for cell, rates in chosen.items():
        run = plan.run(cell, rates).with_seed(plan.preset.seeds[0])
        if cell.method not in found and cell.task == 'breeds' and finished(run, records):
            counted = json.loads((plan.runs / run.name / 'metrics.json').read_text())['parameters']
            found[cell.method] = counted
    head = found.get('linear', {}).get('trained', 0)
    return {method: dict(trained=counted['trained'] - head, total=counted['total'] - head)
            for method, counted in found.items()}


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
    for entry in plan.gates(chosen).entries:
        name, moves = entry.row[0], {}
        for seed in plan.preset.seeds:
            run = entry.run.with_seed(seed)
            if finished(run, records):
                report = read_checkpoint(trained_checkpoint(run, plan.runs / run.name), name)
                start = sigmoid(np.float64(np.float32(-GATES[name].prior)))
                moves[str(seed)] = movement(report.gates, np.full_like(report.gates, start))
        if moves:
            found.append(dict(gates=name, task=entry.task, moved=moves))
    return found


def selection_ratios(plan: Plan, chosen: Chosen, records: Mapping[str, dict]) -> dict[str, list[list[float]]]:
    """Of Gated Prompt Tuning, by ViT and task: the ratio of each block before the last, for each seed."""
    found: dict[str, list[list[float]]] = {}
    for cell, rates in chosen.items():
        for seed in plan.preset.seeds if cell.method == 'gpt' else ():
            run = plan.run(cell, rates).with_seed(seed)
            if finished(run, records):
                report = read_checkpoint(trained_checkpoint(run, plan.runs / run.name), cell.name)
                found.setdefault(f'{cell.vit} {cell.task}', []).append(selection_ratio(report.gates).tolist())
    return found


def read(path: Path) -> dict:
    """What :func:`gather` gave, from results.json.

    Raises:
        SystemExit: there is no such file.
    """
    if not path.is_file():
        raise SystemExit(f'there is no {path}: {COMMAND} makes it')
    return json.loads(path.read_text(encoding='utf-8'))

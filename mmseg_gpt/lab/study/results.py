"""What has been measured, as plain data: everything that is written and drawn is made from this."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ... import __version__
from ...checkpoints import CheckpointError, locate
from ...checkpoints.addresses import KNOWN_FILES, UNKNOWN_FILE
from ...files import file_sha256
from ...recipes.titles import title
from ...resources import command_of
from ..gates import gates_of, ratios_of
from ..provenance import origins
from ..rates import SEARCH_SEED
from ..runs import FAILED, FINISHED, Run, config_of, diverged, outcomes
from ..suite.parameters import count_parameters
from ..suite.plans import Table, runs_in
from ..suite.tables import as_data
from .choices import StudyChoices, choose, with_seeds
from .estimate import read_timings
from .look import looked, looks
from .plan import StudyPlan, StudyVariant
from .tables import parts_of, tables_of


def gather(plan: StudyPlan) -> dict:
    """Returns all results of the runs that have finished."""
    choices = choose(plan, parts_of(plan))
    tables = tables_of(plan, choices, parts_of(plan))
    reported = runs_in(tables.values(), plan.preset.seeds)
    records = outcomes([*choices.searched, *reported], plan.runs)
    tests = outcomes(looks(plan, reported), plan.runs)
    tested = {name.partition('/')[2]: record for name, record in tests.items()}
    seeds = plan.preset.seeds
    return dict(
        about=about(plan, choices, reported, {**records, **tests}),
        validation={name: as_data(table, seeds, records) for name, table in tables.items()} | by_class(
            plan, choices, records, plan.runs),
        test={name: as_data(table, seeds, tested) for name, table in tables.items()} | by_class(
            plan, choices, tested, plan.runs / 'test'),
        parameters=parameters(plan, choices, records),
        rates=tried_rates(plan, choices, records),
        moved=gates_moved(plan, tables['gate_variants'], records),
        selection_ratios=selection_ratios(plan, choices, records),
        timings=read_timings(plan))


def about(plan: StudyPlan, choices: StudyChoices, reported: Sequence[Run], records: Mapping[str, dict]) -> dict:
    """Returns how and with what was measured. A run of a search that diverged has ended as it should."""
    found = [records.get(run.name, {}) for run in (*choices.searched, *reported)]
    statuses = [FINISHED if diverged(record) else record.get('status') for record in found]
    tested = [records.get(look.name, {}).get('status') for look in looks(plan, reported)]
    preset, photographs = plan.preset, plan.photographs
    lists = {split: plan.lists / f'{split}.txt' for split in ('train', 'val', 'test')}
    return dict(
        set=plan.name, command=f'{command_of("study")} {plan.name}' + (' --quick' if preset.name == 'quick' else ''),
        preset=preset.name, version=__version__, vit=named_vit(plan), runs=len(statuses),
        finished=statuses.count(FINISHED), failed=[*statuses, *tested].count(FAILED), open=choices.open,
        looked=looked(plan),
        hours=round(sum(record.get('seconds', 0) for record in records.values()) / 3600, 2),
        **origins(record['made_with'] for record in records.values() if record.get('status') == FINISHED),
        score=photographs.score, seeds=list(preset.seeds), search_seed=SEARCH_SEED, prompts=preset.prompts,
        images={split: len(path.read_text().splitlines()) for split, path in lists.items() if path.is_file()},
        size=photographs.size, batch=photographs.batch, iterations=preset.iterations or photographs.iterations,
        searching=preset.iterations or photographs.searching, longer=preset.iterations or photographs.longer,
        heads=list(preset.heads), rates=list(preset.rates),
        chosen={variant.name: rates._asdict() for variant, rates in choices.rates.items()})


def named_vit(plan: StudyPlan) -> dict:
    """Returns the ViT's name in the configs, an honest title, and the SHA-256 of its file, None without the file."""
    checkpoint = plan.settings_of_vit['init_cfg']['checkpoint']
    try:
        path = locate(checkpoint)
        sha256 = file_sha256(path) if path.is_file() else None
    except CheckpointError:
        sha256 = None
    said = KNOWN_FILES.get(sha256, f'{UNKNOWN_FILE}, in the place of {title(plan.vit)}') if sha256 else (
        f'{title(plan.vit)}, whose file is not there')
    return dict(name=plan.vit, title=said, file=Path(checkpoint).name, sha256=sha256)


def parameters(plan: StudyPlan, choices: StudyChoices, records: Mapping[str, dict]) -> dict[str, dict[str, int]]:
    """Returns how many parameters each variant trains beside its heads, and how many there are in all."""
    found = {}
    for variant, rates in choices.known.items():
        run = plan.run(variant, rates).with_seed(plan.preset.seeds[0])
        if records.get(run.name, {}).get('status') == FINISHED:
            counted = json.loads((plan.runs / run.name / 'metrics.json').read_text())['parameters']
            found[variant.name] = dict(counted, adapting=counted['trained'] - count_parameters(config_of(run)).heads)
    return found


def gates_moved(plan: StudyPlan, table: Table, records: Mapping[str, dict]) -> dict[str, dict[str, float]]:
    """Returns how far gates went from their prior, the largest change of gamma, by setting and seed."""
    found: dict[str, dict[str, float]] = {}
    for entry in table.entries:
        for seed in plan.preset.seeds:
            run = entry.run.with_seed(seed)
            if records.get(run.name, {}).get('status') == FINISHED:
                found.setdefault(entry.row[0], {})[str(seed)] = gates_of(run, plan.runs).moved
    return found


def selection_ratios(plan: StudyPlan, choices: StudyChoices, records: Mapping[str, dict]) -> list[list[float]]:
    """Returns Figure 4: the selection ratio of each block before the last in Gated Prompt Tuning, for each seed."""
    variant = StudyVariant('gpt')
    runs = with_seeds(plan, [plan.run(variant, choices.rates[variant])]) if variant in choices.rates else []
    return ratios_of(runs, records, plan.runs)


def by_class(plan: StudyPlan, choices: StudyChoices, records: Mapping[str, dict], home: Path) -> dict[str, dict]:
    """Returns a table 'classes' of what each variant has for each class, if it is a segmentation.

    Args:
        plan: The plan of the runs.
        choices: What has been chosen.
        records: The records of the tests, by the names of the trainings.
        home: Where the folders of these tests are.
    """
    rows = []
    for variant, rates in choices.known.items() if plan.is_segmentation else ():
        values: dict[str, dict[str, float]] = {}
        for run in with_seeds(plan, [plan.run(variant, rates)]):
            if records.get(run.name, {}).get('status') == FINISHED:
                found = json.loads((home / run.name / 'metrics.json').read_text())['per_class']
                for name in (name for name, value in found.items() if value is not None):
                    values.setdefault(name, {})[run.name.rpartition('_')[2]] = found[name]
        rows += [dict(name=[variant.head_title, variant.method], values=values)] if values else []
    names = list(dict.fromkeys(name for row in rows for name in row['values']))
    return dict(classes=dict(title=f'{plan.photographs.title}: IoU by class', labels=['HEAD', 'METHOD'], columns=names,
                             x='', panels='', rows=rows)) if rows else {}


def tried_rates(plan: StudyPlan, choices: StudyChoices,
                records: Mapping[str, dict]) -> dict[str, dict[str, float | None]]:
    """Returns what each learning rate gave on the validation images, None if it diverged, by variant.

    A run that failed otherwise says nothing of its rate, and is left out.
    """
    found: dict[str, dict[str, float | None]] = {}
    for run in choices.searched:
        name, _, rate = run.name.partition('/')[0].removeprefix('search_').rpartition('_lr_')
        record = records.get(run.name, {})
        if record.get('status') == FINISHED or diverged(record):
            found.setdefault(name, {})[rate] = record.get('numbers', {}).get(plan.photographs.score)
    return {name: dict(sorted(tried.items(), key=lambda each: float(each[0]))) for name, tried in found.items()}

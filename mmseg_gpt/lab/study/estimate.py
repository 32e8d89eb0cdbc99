"""How long a study takes, from a few real iterations and evaluations of each kind of run, on this machine."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ...files import replacing
from ...wording import markdown_table
from ..gates import PRIOR
from ..rates import Rates
from ..runs import FINISHED, Run, outcomes, run_all
from ..scalars import read_scalars
from .choices import AIM_HEADS, AIM_SCALE, FEW_BEST, OTHER_HEAD, OTHER_HEAD_RATES
from .plan import GATES, LINEAR, GateSetting, StudyPlan, StudyVariant
from .sets import list_file
from .tables import COUNTS, FEW_LABELS, FRACTIONS, STARTS, parts_of

TIMED = 6  # iterations
SKIPPED = 2  # of these, as the first ones are slower
SOME = 'some'  # the list of validation images that are evaluated
START = 5.  # seconds of a run beside its iterations: starting, loading the ViT, writing
TIMINGS = 'timings.json'


class TimedRuns(NamedTuple):
    """Runs of one kind.

    Attributes:
        part: Of the study.
        variant: What is trained.
        searches: How many serve to choose something.
        results: How many are results, which are tested too.
    """
    part: str
    variant: StudyVariant
    searches: int
    results: int


def batches(plan: StudyPlan) -> Iterator[TimedRuns]:
    """Yields all runs of a study, as if LoRA were the best method."""
    seeds, parts, best = len(plan.preset.seeds), parts_of(plan), StudyVariant('lora')
    coarse = len(plan.preset.rates[1::2])
    for method in plan.preset.methods:
        variant, rates = StudyVariant(method), coarse + min(2, len(plan.preset.rates) - 1)
        yield TimedRuns('methods', variant, len(plan.preset.heads) if variant == LINEAR else rates, seeds)
        if method in FEW_LABELS:
            yield TimedRuns('labels', StudyVariant(method), 0, len(FRACTIONS) * seeds)
    yield from (TimedRuns('gates', StudyVariant('gpt'), 0, seeds)
                for gates in GATES.values() if gates != GateSetting(PRIOR))
    if 'figures' in parts:
        yield TimedRuns('figures', StudyVariant('vpt-shallow'), 0, (len(STARTS) - 1) * seeds)
        yield from (TimedRuns('figures', StudyVariant(method), 0, (len(counts) - 1) * seeds)
                    for method, counts in COUNTS.items())
    if 'heads' in parts:
        yield TimedRuns('heads', best._replace(head=OTHER_HEAD), len(OTHER_HEAD_RATES), FEW_BEST * seeds)
    heads = tuple(AIM_HEADS) if plan.is_segmentation else ('', )
    for i, head in enumerate(heads):
        yield TimedRuns('aim', best._replace(head=head, scale=AIM_SCALE), int(plan.is_segmentation), 0 if i else seeds)


def timing_run(plan: StudyPlan, variant: StudyVariant) -> Run:
    """Returns a short run by which a kind of run is timed."""
    run = plan.run(variant, Rates(0.001, None if variant.method == 'linear' else 0.0002))
    return run._replace(name=f'timing/{variant.name}', settings=(
        *run.settings, f'train_cfg.max_iters={TIMED}', 'default_hooks.logger.interval=1', 'log_processor.window_size=1',
        f'test_dataloader.dataset.ann_file={list_file(plan.lists, SOME)}'))


def measure(plan: StudyPlan, parts: Collection[str]) -> dict[str, dict[str, float]]:
    """Times each kind of run of some parts, where it is not timed yet, and returns seconds per iteration and image."""
    images, batch = (8, 4) if plan.is_segmentation else (64, 64)
    lines = list_file(plan.lists, 'val').read_text().splitlines(keepends=True)[:images]
    with replacing(list_file(plan.lists, SOME)) as path:
        path.write_text(''.join(lines))
    variants = dict.fromkeys(each.variant for each in batches(plan) if each.part in parts)
    runs = {variant: timing_run(plan, variant) for variant in variants}
    run_all([*runs.values()], plan.runs, title='timing', forked=True)
    records = outcomes([*runs.values()], plan.runs)
    found = {variant.name: timed(plan.runs / run.name, min(batch, len(lines))) for variant, run in runs.items()
             if records.get(run.name, {}).get('status') == FINISHED}
    with replacing(plan.home / TIMINGS) as path:
        path.write_text(json.dumps(read_timings(plan) | found, indent=1) + '\n')
    return found


def timed(folder: Path, batch: int) -> dict[str, float]:
    """Returns the seconds of an iteration, and those of evaluating an image, that a short run has left.

    Args:
        folder: Its work directory.
        batch: Images that are evaluated at once.
    """
    iterations = [step['time'] for step in read_scalars(folder)[0] if 'time' in step and step['step'] > SKIPPED]
    tested = max(path for path in folder.glob('*/*.json') if path.stem == path.parent.name)
    return dict(iteration=round(median(iterations), 3), image=round(json.loads(tested.read_text())['time'] / batch, 4))


def read_timings(plan: StudyPlan) -> dict[str, dict[str, float]]:
    """Returns what :func:`measure` has found before; nothing where it has not."""
    path = plan.home / TIMINGS
    return json.loads(path.read_text()) if path.is_file() else {}


def estimate(plan: StudyPlan, jobs: int, timings: dict[str, dict[str, float]],
             parts: Collection[str] | None = None) -> str:
    """Returns how long each part takes, as Markdown.

    Args:
        plan: The plan of the runs.
        jobs: How many runs are carried out at once, each on a core of its own.
        timings: As :func:`measure` returns them.
        parts: Only these; None for all.
    """
    val, test = (len(list_file(plan.lists, split).read_text().splitlines()) for split in ('val', 'test'))
    spent: dict[str, tuple[int, float]] = {}
    for batch in batches(plan):
        if parts and batch.part not in parts:
            continue
        time = timings[batch.variant.name]
        iterations = (batch.searches * plan.iterations(batch.variant, searching=True)
                      + batch.results * plan.iterations(batch.variant))
        seconds = ((batch.searches + batch.results) * (START + val * time['image']) + iterations * time['iteration']
                   + batch.results * (START + test * time['image']))
        runs, before = spent.get(batch.part, (0, 0.))
        spent[batch.part] = (runs + batch.searches + batch.results, before + seconds)
    total = tuple(sum(values) for values in zip(*spent.values()))
    rows = [[part, f'{runs}', f'{seconds / 3600:.1f}', f'{seconds / 3600 / jobs:.1f}']
            for part, (runs, seconds) in [*spent.items(), ('all', total)]]
    return markdown_table(['Part', 'Trainings', 'Hours of one core', f'Hours with {jobs} at once'], rows)

"""From photographs to results, step by step; each step does what is left of it."""

from collections.abc import Sequence

from ...checks.before import refuse
from ...checks.missing import missing_checkpoint
from ..runs import Run, prepare, run_all
from ..runs.jobs import Cluster
from ..runs.run import Runnable
from ..runs.series import what_stopped
from ..suite.plans import runs_in
from .choices import StudyChoices, choose
from .estimate import estimate, measure
from .look import begin, check_no_choice, check_same_choices, looked, looks
from .plan import StudyPlan
from .report import write
from .results import gather
from .sets import missing, write_lists
from .tables import FRACTIONS, asked_parts, parts_of, tables_of


class Execution:
    """How runs are carried out.

    Args:
        plan: The plan of the runs.
        jobs: How many runs are carried out at once.
        retry_failed: Give runs that failed another chance; after the look at the test images, only its tests.
        overwrite: Remove runs of other settings, and start them over.
        cluster: Where runs are carried out, if not here.
    """

    def __init__(self, plan: StudyPlan, jobs: int, retry_failed: bool = False, overwrite: bool = False,
                 cluster: Cluster | None = None) -> None:
        self.plan, self.jobs, self.cluster = plan, jobs, cluster
        self.retry_failed, self.overwrite = retry_failed, overwrite

    def prepare(self) -> None:
        """Writes the lists of images.

        Raises:
            SystemExit: the photographs or the pretrained file are missing, or the photographs are others; or there are
            lists of other images.
        """
        plan = self.plan
        refuse([*missing(plan.name, plan.data), *missing_checkpoint(
            plan.settings_of_vit['init_cfg'], '--checkpoint FILE')], [])
        write_lists(plan.photographs, plan.data, plan.lists, FRACTIONS, plan.preset.seeds, plan.preset.images)

    def estimate(self, parts: Sequence[str] | None = None) -> str:
        """Times some iterations of each kind of run of some parts or all, and returns how long these take."""
        parts = asked_parts(self.plan, parts)
        self.prepare()
        return estimate(self.plan, self.jobs, measure(self.plan, parts), parts)

    def carry_out(self, runs: Sequence[Run], title: str) -> None:
        """Carries out what is not done yet.

        Raises:
            SystemExit: something is missing, or there are runs of other settings.
        """
        again = self.retry_failed and not looked(self.plan)
        prepare(runs, self.plan.runs, again, self.overwrite)
        self.go(runs, title, again)

    def choose(self, runs: Sequence[Run], title: str) -> None:
        """Carries out runs by which something is chosen.

        Raises:
            SystemExit: as :meth:`carry_out`, or the test images have been looked at.
        """
        check_no_choice(self.plan, runs)
        self.carry_out(runs, title)

    def go(self, runs: Sequence[Run], title: str, again: bool) -> None:
        """Carries out what is not done yet, unchecked; with ``again``, what failed too."""
        run_all(runs, self.plan.runs, title=title, jobs=self.jobs, again=again, forked=True,
                cluster=self.cluster)


def study(work: Execution, parts: Sequence[str] | None = None, *, look: bool = False,
          report_only: bool = False) -> dict:
    """Does what is left, writes the results, and returns them.

    Args:
        work: The plan, and how it is carried out.
        parts: The parts of the study; None for all, with a look at the test images in the end.
        look: Whether to look at the test images after some parts too.
        report_only: Write the results of what has finished, and run nothing.

    Raises:
        SystemExit: it was stopped, after the runs had saved what they need to go on, or something is missing, or the
            set has no such part, or there is nothing to report.
    """
    asked, stopped = asked_parts(work.plan, parts), ''
    try:
        if not report_only:
            do_what_is_left(work, asked, look or parts is None)
    except KeyboardInterrupt:
        stopped = what_stopped(work.cluster)
    results = gather(work.plan)
    if report_only and not results['about']['finished'] and not results['about']['failed']:
        raise SystemExit(f'no run has finished in {work.plan.runs}: there is nothing to report')
    print(f'\n{write(results, work.plan.home)}\nwritten: {work.plan.home}/results.md, .csv, .json and figures')
    if stopped:
        raise SystemExit(stopped)
    if failed := results['about']['failed']:
        raise SystemExit(f'{failed} runs failed; --retry-failed gives them another chance')
    return results


def known_runs(plan: StudyPlan, parts: Sequence[str] | None = None) -> list[Runnable]:
    """Returns the runs of some parts or all that are known by now: later ones depend on what earlier ones give.

    From the look at the test images on, the tests are among them.
    """
    parts, runs = asked_parts(plan, parts), []
    choices = choose(plan, parts, lambda searched, title: runs.extend(searched))
    results = runs_in(tables_of(plan, choices, parts).values(), plan.preset.seeds)
    return [*dict.fromkeys(runs + results), *(looks(plan, results) if looked(plan) else [])]


def do_what_is_left(work: Execution, parts: Sequence[str], look: bool) -> None:
    """Searches, adapts, and looks at the test images.

    Args:
        work: The plan, and how it is carried out.
        parts: The parts of the study.
        look: Whether to look at the test images in the end.

    Raises:
        SystemExit: something is missing, there are runs of other settings, it is too early for the test images, or too
            late for a choice.
    """
    plan = work.plan
    if looked(plan) and work.overwrite:
        raise SystemExit('the test images were looked at, and what was chosen by then stays: --overwrite is refused, '
                         '--out DIR begins another study')
    work.prepare()
    for part in (part for part in parts_of(plan) if part in parts):
        choices = choose(plan, {part}, work.choose)
        check_same_choices(plan, choices)
        work.carry_out(runs_in(tables_of(plan, choices, {part}).values(), plan.preset.seeds), part)
    if look:
        look_at_tests(work, choose(plan, parts), parts)


def look_at_tests(work: Execution, choices: StudyChoices, parts: Sequence[str]) -> None:
    """Tests the results of some parts on the test images.

    Raises:
        SystemExit: something is still to be chosen, or results are missing.
    """
    plan = work.plan
    runs = runs_in(tables_of(plan, choices, parts).values(), plan.preset.seeds)
    begin(plan, choices, runs)
    work.go(looks(plan, runs), 'test images', work.retry_failed)

"""The look at the test images: once, when all is chosen and all results are there, and on record.

``looked.json`` says when it began and what had been chosen by then. After it nothing may be chosen any more.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...files import replacing
from ..runs import FINISHED, Run, outcomes, trained_checkpoint
from ..runs.record import is_done
from ..runs.run import RunFailed, testing
from .choices import StudyChoices, choose, has_ended
from .plan import StudyPlan
from .tables import parts_of

RECORD = 'looked.json'


class Look(NamedTuple):
    """The test of a finished training on the test images; a :class:`~mmseg_gpt.lab.runs.run.Runnable`.

    Attributes:
        run: The training, as it is tested on the test images.
        home: The folder of all runs.
    """
    run: Run
    home: Path

    seconds = None

    @property
    def name(self) -> str:
        """Its folder below that of all runs."""
        return f'test/{self.run.name}'

    @property
    def title(self) -> str:
        """The name."""
        return self.name

    def identity(self) -> dict[str, object]:
        """Returns the settings that decide the result, and the SHA-256 of the pretrained file."""
        return self.run.identity()

    def commands(self, folder: Path) -> Iterator[list[str]]:
        """Yields the test.

        Raises:
            RunFailed: the training has left no checkpoint.
        """
        trained = self.home / self.run.name
        checkpoint = trained_checkpoint(self.run, trained)
        if checkpoint is None:
            raise RunFailed('incomplete', f'there is no checkpoint in {trained}')
        yield from testing(self.run, folder, checkpoint)

    def numbers(self, folder: Path) -> dict[str, float]:
        """Returns what the test has measured.

        Raises:
            RunFailed: it has not written it.
        """
        return self.run.numbers(folder)


def looks(plan: StudyPlan, runs: Sequence[Run]) -> list[Look]:
    """Returns the tests of those trainings that have finished on the test images."""
    images, records = plan.listed('test', 'test'), outcomes(runs, plan.runs)
    return [Look(run._replace(settings=(*run.settings, *images)), plan.runs) for run in runs
            if records.get(run.name, {}).get('status') == FINISHED]


def begin(plan: StudyPlan, choices: StudyChoices, runs: Sequence[Run]) -> None:
    """Takes down that the test images are looked at from now on, with all choices that have been made by now.

    Those for other parts are among them, so that these parts can still be carried out.

    Args:
        plan: The plan of the runs.
        choices: What has been chosen for the parts that are tested.
        runs: The results that are to be tested.

    Raises:
        SystemExit: something is still to be chosen, or results are missing.
    """
    records = outcomes(runs, plan.runs)
    left = [run.name for run in runs if not has_ended(records.get(run.name, {}))]
    if choices.open or left:
        what = [*choices.open, *([f'{len(left)} results have not finished, as {left[0]}'] if left else [])]
        raise SystemExit('the test images are looked at once, when all is chosen and all results are there; not yet: '
                         f'{"; ".join(what)}')
    if not (plan.home / RECORD).is_file():
        known = choose(plan, parts_of(plan)).known
        said = dict(time=time.strftime('%Y-%m-%d %H:%M %z'), results=len(runs),
                    chosen={variant.name: rates._asdict() for variant, rates in known.items()})
        with replacing(plan.home / RECORD) as path:
            path.write_text(json.dumps(said, indent=1) + '\n')


def looked(plan: StudyPlan) -> dict | None:
    """Returns when the test images were looked at, and what had been chosen by then; None before."""
    path = plan.home / RECORD
    return json.loads(path.read_text()) if path.is_file() else None


def check_no_choice(plan: StudyPlan, runs: Sequence[Run]) -> None:
    """Refuses runs by which something would be chosen after the look at the test images.

    Raises:
        SystemExit: there are some that have not ended.
    """
    said = looked(plan)
    records = outcomes(runs, plan.runs) if said else {}
    if left := [run.name for run in runs if said and not is_done(records.get(run.name, {}))]:
        raise SystemExit(f'the test images were looked at ({said["time"]}), and nothing may be chosen after that, as '
                         f'{left[0]} would: --out DIR begins another study')


def check_same_choices(plan: StudyPlan, choices: StudyChoices) -> None:
    """Refuses choices that had not been made before the look at the test images.

    Raises:
        SystemExit: there are some.
    """
    said = looked(plan)
    known = {variant.name: rates._asdict() for variant, rates in choices.known.items()} if said else {}
    if new := [name for name, rates in known.items() if said['chosen'].get(name) != rates]:
        raise SystemExit(f'the test images were looked at ({said["time"]}), and {", ".join(new)} would be chosen only '
                         'now: --out DIR begins another study')

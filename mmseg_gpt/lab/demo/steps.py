"""Running commands one after the other, with progress, an estimate of the time left, and a record of what is done."""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ... import __version__
from ...wording import duration
from ..commands import LiveLine, run_command


class Step(NamedTuple):
    """One command.

    Attributes:
        name: Its key in steps.json and the name of its log.
        title: What it does, for people.
        command: What is run, from the current folder: ``python``, a script and its arguments.
        outputs: Files that are there when it is done.
        seconds: How long it takes on two cores; for the time left.
    """
    name: str
    title: str
    command: list[str]
    outputs: list[Path]
    seconds: int


class Progress(LiveLine):
    """Shows a running command, and the time left for all.

    Args:
        seconds: Estimates for all steps that will run, in order.
    """

    def __init__(self, seconds: list[int]) -> None:
        super().__init__()
        self.estimates, self.spent = seconds, []

    def left(self) -> str:
        """The estimate for what remains, corrected by how long the steps so far took."""
        done, rest = sum(self.estimates[:len(self.spent)]), sum(self.estimates[len(self.spent):])
        # Early on the estimates count as half a minute of experience, so one slow start does not dominate.
        return duration(rest * (sum(self.spent) + 30) / (done + 30))

    def finish(self, seconds: float) -> None:
        """Ends the step's line."""
        self.spent.append(seconds)
        self.end(f'done in {duration(seconds)}\n')


def inputs(step: Step) -> dict:
    """What decides the result of a step: one that was done with the same is not done again."""
    digest = hashlib.sha256(__version__.encode())
    for config in (Path(word) for word in step.command[2:] if word.endswith('.py')):
        digest.update(config.read_bytes() if config.is_file() else b'')  # its absence is for the command to report
    return dict(command=step.command, hash=digest.hexdigest())


def run_step(step: Step, log: Path, progress: Progress) -> float:
    """Runs a command with its output in ``log``, and returns its seconds.

    Raises:
        SystemExit: it failed; the message has the end of the log and its path.
    """
    started = time.time()
    try:
        status = run_command(step.command, log, progress.show)
    except KeyboardInterrupt:
        sys.exit('\nstopped; run it again to go on with this step')
    if status or not all(path.exists() for path in step.outputs):
        end = '\n'.join(log.read_text().splitlines()[-15:])
        sys.exit(f'\n{end}\n\nThis step failed (exit status {status}). All it printed: {log}')
    return time.time() - started


def run_steps(steps: list[Step], work_dir: Path, fresh: bool = False) -> dict[str, float]:
    """Runs what is not done yet, and returns the seconds of every step by its name.

    Args:
        steps: In order. A step is done if ``work_dir/steps.json`` says so for the same command, config files and
            version of this package, and its outputs are there; whatever follows one that is run is run as well.
        work_dir: Where the record and the logs are written.
        fresh: Run everything.
    """
    record_file, logs = work_dir / 'steps.json', work_dir / 'logs'
    logs.mkdir(parents=True, exist_ok=True)
    records = json.loads(record_file.read_text()) if record_file.is_file() and not fresh else {}
    done = 0  # finished steps at the front
    while done < len(steps) and is_done(steps[done], records.get(steps[done].name, {})):
        done += 1
    records = {step.name: records[step.name] for step in steps[:done]}
    write_record(record_file, records)  # should this be stopped, what is run again must not count as done
    progress = Progress([step.seconds for step in steps[done:]])
    for i, step in enumerate(steps):
        head = f'[{i + 1}/{len(steps)}] {step.title}'
        if i < done:
            print(f'{head}: done before, skipped (--fresh runs it again)', flush=True)
            continue
        print(f'{head}   (about {progress.left()} left in all)\n    $ {" ".join(step.command)}', flush=True)
        wanted = inputs(step)  # before it runs: a config that is edited meanwhile is not the one that was read
        seconds = run_step(step, logs / f'{step.name}.log', progress)
        progress.finish(seconds)
        records[step.name] = dict(wanted, seconds=round(seconds, 1))
        write_record(record_file, records)
    return {step.name: records[step.name]['seconds'] for step in steps}


def is_done(step: Step, record: dict) -> bool:
    """Whether ``record`` is of this very step and its outputs are still there."""
    return inputs(step).items() <= record.items() and all(path.exists() for path in step.outputs)


def write_record(file: Path, records: dict[str, dict]) -> None:
    """Writes steps.json: by step, its inputs and how long it took."""
    file.write_text(json.dumps(records, indent=2) + '\n')

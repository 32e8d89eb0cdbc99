"""Running commands one after the other, with progress, an estimate of the time left, and a record of what is done."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from .folder import available_cpus


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


class Progress:
    """Shows a running command in one line (a line now and then where there is no terminal) and the time left.

    Args:
        seconds: Estimates for all steps that will run, in order.
    """

    def __init__(self, seconds: list[int]) -> None:
        self.estimates, self.spent, self.last = seconds, [], 0.

    def left(self) -> str:
        """The estimate for what remains, corrected by how long the steps so far took."""
        done, rest = sum(self.estimates[:len(self.spent)]), sum(self.estimates[len(self.spent):])
        # Early on the estimates count as half a minute of experience, so one slow start does not dominate.
        return duration(rest * (sum(self.spent) + 30) / (done + 30))

    def show(self, line: str) -> None:
        """Prints what ``line`` of a log says about progress, if anything, every few seconds."""
        text, now = condense(line), time.time()
        if not text or now - self.last < (0.2 if sys.stdout.isatty() else 5):
            return
        self.last = now
        print(f'\r\033[K      {text}' if sys.stdout.isatty() else f'      {text}',
              end='' if sys.stdout.isatty() else '\n', flush=True)

    def finish(self, seconds: float) -> None:
        """Ends the step's line."""
        self.spent.append(seconds)
        self.last = 0.
        print(('\r\033[K' if sys.stdout.isatty() else '') + f'      done in {duration(seconds)}\n', flush=True)


def condense(line: str) -> str | None:
    """The part of a log line that shows progress: ``train 120/300, eta 0:01:12, loss 0.61``; else None."""
    if match := re.search(r'(?:Iter|Epoch)\((\w+)\)\s+\[\s*(\d+/\d+)\]', line):
        values = [f'{key} {value}' for key, value in re.findall(r'\b(eta|loss|mIoU): (\S+)', line)]
        return ', '.join([f'{match[1]} {match[2]}', *values])
    match = re.match(r'\d+/\d+ images drawn', line)
    return match[0] if match else None


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    return f'{seconds:.0f} s' if seconds < 60 else f'{int(seconds) // 60} min {int(seconds) % 60} s'


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
    # Passive: threads that spin while they wait make everything slow where the CPUs are shared.
    environment = {'OMP_NUM_THREADS': str(min(available_cpus(), 8)), 'OMP_WAIT_POLICY': 'PASSIVE',
                   'PYTHONWARNINGS': 'ignore', **os.environ}
    started = time.time()
    with log.open('w') as file, subprocess.Popen(
            [sys.executable, *step.command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace', env=environment) as process:
        try:
            for line in process.stdout:
                file.write(line)
                progress.show(line)
        except KeyboardInterrupt:
            process.terminate()
            sys.exit('\nstopped; run it again to go on with this step')
    if process.returncode or not all(path.exists() for path in step.outputs):
        end = '\n'.join(log.read_text().splitlines()[-15:])
        sys.exit(f'\n{end}\n\nThis step failed (exit status {process.returncode}). All it printed: {log}')
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

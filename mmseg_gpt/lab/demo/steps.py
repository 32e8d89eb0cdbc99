"""The steps of a demo: commands that need what those before them have left."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from ... import __version__
from ...files import file_sha256
from ..runs import FAILED, FINISHED, command_line, read_record, run_all
from ..runs.record import LOG, clear, difference
from ..runs.run import RunFailed


class Step(NamedTuple):
    """One command; a :class:`~mmseg_gpt.lab.runs.run.Runnable`.

    Attributes:
        name: Its folder in ``steps/``.
        title: What it does, for people.
        command: What is run, from the current folder: ``python``, a script and its arguments.
        outputs: Files that are there when it is done.
        seconds: How long it takes on two cores.
    """
    name: str
    title: str
    command: tuple[str, ...]
    outputs: tuple[Path, ...]
    seconds: int

    def identity(self) -> dict[str, object]:
        """Returns what decides the result: the command, the configs that it names, and this package's version."""
        configs = {word: file_hash(Path(word)) for word in self.command[2:] if word.endswith('.py')}
        return dict(settings=dict(command=command_line(self.command), version=__version__, **configs), pretrained=None)

    def commands(self, folder: Path) -> Iterator[list[str]]:
        """Yields the command.

        Raises:
            RunFailed: it has not left what it should have.
        """
        yield list(self.command)
        if absent := [str(path) for path in self.outputs if not path.exists()]:
            raise RunFailed('incomplete', f'it has not left {", ".join(absent)}')

    def numbers(self, folder: Path) -> dict[str, float]:
        """Returns nothing: the report reads what the steps have left."""
        return {}

    def is_done(self, folder: Path) -> bool:
        """Returns whether the record in ``folder`` is of this very step, and its outputs are still there."""
        record = read_record(folder)
        return (record.get('status') == FINISHED and not difference(record, self)
                and all(path.exists() for path in self.outputs))


def file_hash(path: Path) -> str:
    """Returns hashes of a config file and of those that it inherits from; '' where it is absent.

    What is wrong with a config is for the command to report.
    """
    if not path.is_file():
        return ''
    bases = []
    with suppress(SyntaxError, ConfigParsingError):
        bases = [path.parent / base for base in Config._get_base_files(str(path))]
    return ' '.join([file_sha256(path), *filter(None, map(file_hash, bases))])


def run_steps(steps: Sequence[Step], work_dir: Path, fresh: bool = False, forked: bool = False) -> dict[str, float]:
    """Runs what is not done yet, and returns the seconds of every step by its name.

    Args:
        steps: In order. A step is done if its record says so for the same command, config files and version of this
            package, and its outputs are there; whatever follows one that is run is run as well.
        work_dir: The records and logs are written into ``steps/NAME/`` in it.
        fresh: Run everything.
        forked: Import what the commands need only once, see :func:`~mmseg_gpt.lab.runs.run_all`.

    Raises:
        SystemExit: a step has failed, and the message has the end of its log; or it was stopped.
    """
    home = work_dir / 'steps'
    done = 0  # finished steps at the front
    while not fresh and done < len(steps) and steps[done].is_done(home / steps[done].name):
        done += 1
    for step in steps[done:]:  # should this be stopped, what is to be run again must not count as done
        clear(home / step.name)
    try:
        run_all(steps, home, title='steps', in_order=True, forked=forked)
    except KeyboardInterrupt:
        raise SystemExit('\nstopped; run it again to go on with this step') from None
    records = {step.name: read_record(home / step.name) for step in steps}
    for name, record in records.items():
        if record.get('status') == FAILED:
            log = home / name / LOG
            end = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
            raise SystemExit(f'{end}\n\nThis step failed ({record["code"]}: {record["reason"]}). All it printed: {log}')
        if record.get('status') != FINISHED:
            raise SystemExit(f'{home / name} is being carried out by another process')
    return {name: record['seconds'] for name, record in records.items()}

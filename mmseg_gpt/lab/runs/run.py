"""What a run is: a training with its tests, as settings of a config and as commands."""

import functools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from mmengine.config import Config

from ... import resources
from ...checkpoints import CheckpointError, locate, read_file
from ...engine import read_config
from ...engine.resume import POINTER, named_checkpoint
from ...files import file_sha256
from ...settings import settings_of, type_name
from ..finished import METRICS, decisive, numbers_in

# The settings of a config that plans and searches change, by short names that also name the folders of runs.
SETTINGS = {
    'lr': 'optim_wrapper.optimizer.lr',
    'gate': 'model.backbone.prompt.gate_init',
    'prompts': 'model.backbone.prompt.num_tokens',
    'start': 'model.backbone.start_block',
}


class RunFailed(RuntimeError):
    """A run has failed: ``code`` says why to programs, and the message to people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Runnable(Protocol):
    """What can be carried out: a :class:`Run`, or a step of a demo.

    Attributes:
        name: Its folder below that of all runs.
        title: What it does, for people.
        seconds: How long it takes; None if nobody knows before it has been tried.
    """
    name: str
    title: str
    seconds: float | None

    def identity(self) -> dict[str, object]:
        """Returns the ``settings`` that decide the result, and the SHA-256 of the ``pretrained`` file if it has one."""

    def commands(self, folder: Path) -> Iterator[list[str]]:
        """Yields the commands, each when the one before it has succeeded.

        Raises:
            RunFailed: one of them has not left what it should have.
        """

    def numbers(self, folder: Path) -> dict[str, float]:
        """Returns what has been measured when all commands have ended.

        Raises:
            RunFailed: nothing has.
        """


class Run(NamedTuple):
    """A training and its tests; a :class:`Runnable`.

    Attributes:
        name: Its folder below that of all runs.
        config: A config file, or the name of an experiment of classification.
        settings: ``KEY=VALUE`` settings that it changes.
        options: Options for both tools, such as '--search-split'.
        tta: Test multi-scale with flip as well.
        tested: Whether it is tested at all; a pretraining is not.
    """
    name: str
    config: str
    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    tta: bool = False
    tested: bool = True

    seconds = None

    @property
    def title(self) -> str:
        """The name."""
        return self.name

    def with_seed(self, seed: int) -> 'Run':
        """Returns this run with a seed, in a folder of its own."""
        return self._replace(name=f'{self.name}/seed_{seed}', settings=(*self.settings, f'randomness.seed={seed}'))

    def identity(self) -> dict[str, object]:
        """Returns the settings that decide the result, and the SHA-256 of the pretrained file."""
        return dict(settings=decisive_settings(self), pretrained=pretrained_sha256(self))

    def commands(self, folder: Path) -> Iterator[list[str]]:
        """Yields the training, which goes on where it was interrupted, and the tests of what it has left.

        Raises:
            RunFailed: the training has left no checkpoint.
        """
        if not has_trained(self, folder):
            yield training(self, folder)
        checkpoint = trained_checkpoint(self, folder)
        if checkpoint is None:
            raise RunFailed('incomplete', f'the training left no checkpoint in {folder}')
        yield from testing(self, folder, checkpoint)

    def numbers(self, folder: Path) -> dict[str, float]:
        """Returns what tools/test.py has measured: 'accuracy/top1', or 'mIoU' and multi-scale 'tta/mIoU'.

        Raises:
            RunFailed: it has not written them.
        """
        found = {}
        for prefix, file in METRICS.items():
            if self.tested and (self.tta or not prefix):
                try:
                    metrics = json.loads((folder / file).read_text(encoding='utf-8'))
                except (OSError, ValueError) as error:
                    raise RunFailed('incomplete', f'the test has left no {folder / file}: {error}') from error
                found.update({prefix + name: value for name, value in numbers_in(metrics).items()})
        return found


def with_settings(run: Run, **changes: float | None) -> Run:
    """Returns a run with other values of some of ``SETTINGS``; None leaves what the config has."""
    changes = {name: value for name, value in changes.items() if value is not None}
    words = [f'{name}_{format_number(value)}' for name, value in changes.items()]
    settings = [f'{SETTINGS[name]}={format_number(value)}' for name, value in changes.items()]
    return run._replace(name='_'.join([run.name, *words]), settings=(*run.settings, *settings))


def format_number(value: float) -> str:
    """Returns a number as people write it, with all its digits."""
    short = f'{value:g}'
    return short if float(short) == value else repr(value)


def config_of(run: Run) -> Config:
    """Returns the config that the run's tools read.

    Raises:
        SystemExit: there is no such config, or a setting is wrong.
    """
    protocols = {name: f'--{name.replace("_", "-")}' in run.options for name in ('search_split', 'authors_protocol')}
    return read_config(run.config, run.settings, launcher='none', **protocols)


@functools.cache
def decisive_settings(run: Run) -> dict[str, object]:
    """Returns the settings that decide the run's result, by their dotted keys.

    These are all settings of its config but those that only say how it is carried out.
    """
    return dict(tta=run.tta, **decisive(json.loads(settings_of(config_of(run)))))


def pretrained_sha256(run: Run) -> str | None:
    """Returns the SHA-256 of the pretrained file as it is now; None where it is not on this machine."""
    path = decisive_settings(run).get('model.backbone.init_cfg.checkpoint')
    try:
        path = path and locate(path)
    except CheckpointError:
        return None
    if not path or not path.is_file():
        return None
    about = path.stat()
    return sha256_of(path, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))


@functools.cache
def sha256_of(path: Path, about: tuple[int, ...]) -> str:
    """Returns the SHA-256 of a file; it is read once, unless what the system says ``about`` it changes."""
    return file_sha256(path)


def training(run: Run, folder: Path) -> list[str]:
    """Returns the command that trains, or goes on with it."""
    tool = resources.TOOLS / 'train.py'
    return ['python', relative_path(tool), relative_path(run.config), *arguments(run, folder), '--resume']


def testing(run: Run, folder: Path, checkpoint: str | Path) -> list[list[str]]:
    """Returns the commands that test, each of which writes a file of numbers."""
    if not run.tested:
        return []
    tool = resources.TOOLS / 'test.py'
    paths = map(relative_path, (tool, run.config, checkpoint))
    command = ['python', *paths, *arguments(run, folder)]
    return [command, [*command, '--tta']] if run.tta else [command]


def arguments(run: Run, folder: Path) -> list[str]:
    """Returns the arguments that both tools are given."""
    settings = ['--cfg-options', *run.settings] if run.settings else []
    return ['--work-dir', relative_path(folder), *run.options, *settings]


def trained_checkpoint(run: Run, folder: Path) -> Path | None:
    """Returns what a finished training has left to be tested: by the authors' protocol its best, else its last."""
    if '--authors-protocol' in run.options:
        best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        return best[-1] if best else None
    return named_checkpoint(folder / POINTER, folder)


def has_trained(run: Run, folder: Path) -> bool:
    """Says whether a training has ended, so that an interruption can only have been one of the tests.

    tools/train.py refuses to go on with what has ended without keeping the state of its optimizer. By the authors'
    protocol the training goes on nevertheless, as its last validation may be missing.
    """
    path = None if '--authors-protocol' in run.options else trained_checkpoint(run, folder)
    try:
        meta = read_file(path)['meta'] if path else {}
    except CheckpointError:  # about which the training says more
        return False
    settings = decisive_settings(run)
    return any(meta.get(unit, -1) >= settings.get(f'train_cfg.max_{unit}s', math.inf) for unit in ('iter', 'epoch'))


def relative_path(path: str | Path) -> str:
    """Returns a path as people write it from the current folder; the name of an experiment as it is."""
    path = str(path)
    return min(path, os.path.relpath(path), key=len) if os.path.isabs(path) else path


def command_line(command: Iterable[str]) -> str:
    """Returns a command as it is typed."""
    return resources.as_typed(list(command))


def adapter_only_setting(config: Mapping) -> tuple[str, ...]:
    """Returns the setting that keeps the frozen ViT out of a classification run's checkpoints: 2 MB, not 330."""
    backbone = config.get('model', {}).get('backbone', {})
    frozen = type_name(backbone) == 'GatedPromptViT' and backbone.get('frozen', True)
    return ('default_hooks.checkpoint.adapter_only=True', ) if frozen and 'head' in config['model'] else ()

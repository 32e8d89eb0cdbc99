"""A run: a training with what it is tested with, as settings of a config and as commands."""

import functools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ..checkpoints import CheckpointError, locate
from ..engine import read_config
from ..files import file_sha256
from ..resources import TOOLS, as_typed
from ..settings import look_up, settings_of, type_name
from .finished import decisive

# What plans and searches change in a config, by short names that also name the folders of runs.
SETTINGS = {
    'lr': 'optim_wrapper.optimizer.lr',
    'gate': 'model.backbone.prompt.gate_init',
    'prompts': 'model.backbone.prompt.num_tokens',
    'start': 'model.backbone.start_block',
}


class Run(NamedTuple):
    """A training and its tests.

    Attributes:
        name: Its folder below that of all runs.
        config: A config file, or the name of an experiment of classification.
        settings: ``KEY=VALUE`` settings that it changes.
        options: Of both tools, such as '--search-split'.
        tta: Test multi-scale with flip as well.
        tested: Whether it is tested at all; a pretraining is not.
    """
    name: str
    config: str
    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    tta: bool = False
    tested: bool = True

    def with_seed(self, seed: int) -> 'Run':
        """This run with a seed, in a folder of its own."""
        return self._replace(name=f'{self.name}/seed_{seed}', settings=(*self.settings, f'randomness.seed={seed}'))


def changed(run: Run, **changes: float | None) -> Run:
    """A run with other values of some of ``SETTINGS``; None leaves what the config has."""
    changes = {name: value for name, value in changes.items() if value is not None}
    words = [f'{name}_{number(value)}' for name, value in changes.items()]
    settings = [f'{SETTINGS[name]}={number(value)}' for name, value in changes.items()]
    return run._replace(name='_'.join([run.name, *words]), settings=(*run.settings, *settings))


def number(value: float) -> str:
    """A number as people write it, with all its digits."""
    short = f'{value:g}'
    return short if float(short) == value else repr(value)


def config_of(run: Run) -> Config:
    """The config that the run's tools read.

    Raises:
        SystemExit: there is no such config, or a setting is wrong.
    """
    protocols = {name: f'--{name.replace("_", "-")}' in run.options for name in ('search_split', 'authors_protocol')}
    return read_config(run.config, run.settings, launcher='none', **protocols)


@functools.cache
def what_it_is(run: Run) -> dict[str, object]:
    """The settings that decide the run's result, by their dotted keys: its config but for how it is carried out."""
    return dict(tta=run.tta, **decisive(json.loads(settings_of(config_of(run)))))


@functools.cache
def pretrained_sha256(run: Run) -> str | None:
    """The SHA-256 of the pretrained file; None where it is not on this machine."""
    path = (look_up(config_of(run), 'model.backbone.init_cfg') or {}).get('checkpoint')
    try:
        path = path and locate(path)
    except CheckpointError:
        return None
    return sha256_of(path, path.stat().st_mtime_ns) if path and path.is_file() else None


@functools.cache
def sha256_of(path: Path, changed_at: int) -> str:
    """The SHA-256 of a file that was last changed at that time; read once."""
    return file_sha256(path)


def training(run: Run, folder: Path, tools: Path = TOOLS) -> list[str]:
    """The command that trains, or goes on with it."""
    return ['python', shown(tools / 'train.py'), shown(run.config), *arguments(run, folder), '--resume']


def testing(run: Run, folder: Path, checkpoint: str | Path, tools: Path = TOOLS) -> list[list[str]]:
    """The commands that test, each of which writes a file of numbers."""
    if not run.tested:
        return []
    command = ['python', shown(tools / 'test.py'), shown(run.config), shown(checkpoint), *arguments(run, folder)]
    return [command, [*command, '--tta']] if run.tta else [command]


def arguments(run: Run, folder: Path) -> list[str]:
    """What both tools are given."""
    settings = ['--cfg-options', *run.settings] if run.settings else []
    return ['--work-dir', shown(folder), *run.options, *settings]


def shown(path: str | Path) -> str:
    """A path as people write it from the current folder; the name of an experiment as it is."""
    path = str(path)
    return min(path, os.path.relpath(path), key=len) if os.path.isabs(path) else path


def typed(command: Iterable[str]) -> str:
    """Returns a command as it is typed."""
    return as_typed(list(command))


def saving(config: Mapping) -> tuple[str, ...]:
    """The setting that keeps the frozen ViT out of the checkpoints of a classification run: 2 MB in place of 330."""
    backbone = config.get('model', {}).get('backbone', {})
    frozen = type_name(backbone) == 'GatedPromptViT' and backbone.get('frozen', True)
    return ('default_hooks.checkpoint.adapter_only=True', ) if frozen and 'head' in config['model'] else ()

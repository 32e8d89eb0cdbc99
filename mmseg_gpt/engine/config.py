"""From command line arguments to a config the runner can start: shared by the tools."""

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from ..checkpoints import CheckpointError
from ..checks import check_options
from ..datasets import SampleError
from ..resources import find_config_file, nearest_configs
from ..settings import look_up
from .guards import RunStopped
from .resume import POINTER, newest_checkpoint


def read_config(args: argparse.Namespace) -> Config:
    """Reads a config and applies the arguments of the tools.

    Args:
        args: With ``config``, a path or a name as for :func:`find_config`; ``cfg_options``, a list of ``KEY=VALUE`` or
            None; ``work_dir`` and ``launcher``, which may be None; ``search_split`` and ``authors_protocol`` if the
            tool has these.

    Raises:
        SystemExit: there is no such config, an option that would change nothing, or ``--launcher pytorch``
            without torchrun.
    """
    cfg, name = find_config(args.config), Path(args.config).stem
    for protocol in ('search_split', 'authors_protocol'):
        if getattr(args, protocol, False):
            follow_protocol(cfg, protocol)
            name += f'_{protocol.split("_")[0]}'
    if args.cfg_options:
        options = parse_settings(args.cfg_options)
        check_options(cfg, options)
        cfg.merge_from_dict(options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / name)
    cfg.launcher = find_launcher(args.launcher)
    return cfg


def find_config(config: str) -> Config:
    """Reads a config: a file, a config of the package by its name, or an experiment of classification by its name.

    Raises:
        SystemExit: there is none of these, or it is not a whole config, or a module that it imports is not there.
    """
    if file := find_config_file(config):
        try:
            cfg = Config.fromfile(file)
        except OSError as error:  # not a suffix of configs, or a base is not there
            raise SystemExit(f'{config} cannot be read as a config: {error}') from error
        except ImportError as error:
            raise SystemExit(not_importable(config, error)) from error
        if not cfg.get('model'):
            raise SystemExit(f'{config} has no model: it is a part of configs')
        return cfg
    name = Path(config).stem
    if not name.startswith('cls_'):
        nearest = nearest_configs(config)
        raise SystemExit(f'there is no config {config}: it is neither a file nor a name of those in configs/, which '
                         'mmseg-gpt configs lists' + (f'. Did you mean {" or ".join(nearest)}?' if nearest else ''))
    from ..recipes import read_experiment
    try:
        return read_experiment(name)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    except ImportError as error:
        raise SystemExit(not_importable(config, error)) from error


def not_importable(config: str, error: ImportError) -> str:
    """Says which module of a config's ``custom_imports`` cannot be imported, by the first error behind MMEngine's."""
    while isinstance(error.__cause__ or error.__context__, ImportError):
        error = error.__cause__ or error.__context__
    return (f'{config} imports what cannot be imported: {error}. Classification needs mmpretrain and torchvision; see '
            '"Install" in docs/get_started.md')


def follow_protocol(cfg: Config, protocol: str) -> None:
    """Changes ``cfg`` as the option ``--search-split`` or ``--authors-protocol`` asks.

    Raises:
        SystemExit: it is not a config for which there is that protocol.
    """
    from ..recipes import follow_the_authors, hold_out_for_search
    try:
        dict(search_split=hold_out_for_search, authors_protocol=follow_the_authors)[protocol](cfg)
    except ValueError as error:
        raise SystemExit(f'--{protocol.replace("_", "-")}: {error}') from error


def parse_settings(settings: list[str]) -> dict[str, object]:
    """The values of ``KEY=VALUE`` settings, as MMEngine reads them from a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *settings]).cfg_options


def find_launcher(launcher: str | None) -> str:
    """The launcher that was asked for; where none was, 'pytorch' under torchrun and else 'none'.

    Raises:
        SystemExit: 'pytorch' was asked for, but torchrun did not start this process.
    """
    under_torchrun = {'RANK', 'LOCAL_RANK', 'WORLD_SIZE'} <= os.environ.keys()
    if launcher == 'pytorch' and not under_torchrun:
        raise SystemExit('--launcher pytorch: start the tool with torchrun, as in torchrun --nproc-per-node 8 '
                         '-m mmseg_gpt train CONFIG')
    return launcher or ('pytorch' if under_torchrun else 'none')


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Ends the process with an error's message, without a traceback, where the message says all; the log gets it too.

    Raises:
        SystemExit: in the place of errors of checkpoints, samples and guards.
    """
    try:
        yield
    except (CheckpointError, RunStopped, SampleError) as error:
        words = str(error).rpartition('SampleError: ')[2]  # a worker process puts its traceback before it
        logger = MMLogger.get_current_instance()
        record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, words, (), None)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)
        raise SystemExit(words) from error


def set_resume(cfg: Config, resume: str | bool, overwrite: bool = False) -> None:
    """Makes a config resume a run, or refuses to write over one.

    Args:
        cfg: Is changed; its ``work_dir`` says where the run is.
        resume: A checkpoint file, True for the newest whole one in the work directory, or False for a new run.
        overwrite: Whether a new run may replace the checkpoints of an earlier one.

    Raises:
        SystemExit: the path is not a file; no checkpoint of the run is whole; or a new run would overwrite the
            checkpoints of an earlier one.
    """
    if resume and cfg.get('load_from'):
        cfg.started_from = cfg.load_from  # its place is taken by the checkpoint that is resumed
    if isinstance(resume, str):
        if not Path(resume).is_file():
            raise SystemExit(f'--resume: there is no checkpoint {resume}')
        cfg.update(resume=True, load_from=resume)
    elif resume:
        try:
            newest = newest_checkpoint(cfg.work_dir, look_up(cfg, 'default_hooks.checkpoint.out_dir'))
        except CheckpointError as error:
            raise SystemExit(f'--resume: {error}') from error
        if newest is None:
            print(f'--resume: {cfg.work_dir} holds no run, so this one starts from iteration 0')
        cfg.load_from = str(newest) if newest else cfg.get('load_from')
        cfg.resume = newest is not None
    elif not cfg.get('resume') and not overwrite and Path(cfg.work_dir, POINTER).exists():
        raise SystemExit(f'{cfg.work_dir} holds the checkpoints of an earlier run, which this one would overwrite. '
                         '--resume goes on with that run, --work-dir DIR writes elsewhere, --overwrite starts over')

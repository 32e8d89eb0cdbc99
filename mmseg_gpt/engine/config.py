"""From what the tools are given to a config that the runner can start."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from ..checkpoints import CheckpointError
from ..checks import check_options
from ..models.complete import explicit
from ..resources import command_of, find_config_file, nearest_configs
from ..settings import levels_found, look_up, with_classes
from .nodes import under_srun
from .resume import POINTER, newest_checkpoint
from .shared_config import is_shared, own_modules, shared_config


def read_config(config: str | Path, options: Sequence[str] = (), work_dir: str | Path | None = None,
                launcher: str | None = None, search_split: bool = False, authors_protocol: bool = False) -> Config:
    """Reads a config and changes it as the arguments say.

    Args:
        config: A path, or the name of an experiment of classification.
        options: Settings to override, as ``KEY=VALUE`` with dots for levels.
        work_dir: Where the run writes; None for the config's own, or ``work_dirs`` and the config's name.
        launcher: How several processes are started; None for torchrun or srun if it started this process, else none.
        search_split: Train without the validation images of classification, and evaluate on them.
        authors_protocol: Train and evaluate classification as the authors' code does.

    Raises:
        SystemExit: there is no such config, its model cannot be completed, an option would change nothing, a protocol
            is not one of this config, or the launcher is 'pytorch' without torchrun.
    """
    cfg, name = find_incomplete(str(config)), Path(config).stem
    if search_split:
        follow_protocol(cfg, 'search_split')
        name += '_search'
    if authors_protocol:
        follow_protocol(cfg, 'authors_protocol')
        name += '_authors'
    cfg = with_options(cfg, parse_settings(options), str(config)) if options else completed(cfg, str(config))
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or Path('work_dirs') / name)
    cfg.launcher = find_launcher(launcher)
    return cfg


def find_config(config: str) -> Config:
    """Reads a config and completes its model: a file, a config of the package by name, or an experiment by name.

    Raises:
        SystemExit: as :func:`find_incomplete` and :func:`completed`.
    """
    return completed(find_incomplete(config), config)


def completed(cfg: Config, name: str) -> Config:
    """Returns a copy of a config whose model is complete; ``name`` is what messages call it.

    Raises:
        SystemExit: a setting is missing and follows from no other, or two contradict each other.
    """
    try:
        return explicit(cfg)
    except ValueError as error:
        raise SystemExit(f'{name}: {error}{base_hint(find_config_file(name))}') from error


def with_options(cfg: Config, options: dict[str, object], name: str) -> Config:
    """Returns a config with other settings, and what follows from them.

    Settings are changed before the model is completed; those that only the complete model has, as
    ``model.auxiliary_head.0.num_convs``, afterwards.

    Args:
        cfg: A config whose model may be incomplete; it is changed.
        options: Values by dotted path.
        name: What messages call the config.

    Raises:
        SystemExit: an option would change nothing, or as :func:`completed`.
    """
    known = cfg.copy()
    known.merge_from_dict({path: value for path, value in options.items()
                           if levels_found(cfg, path) == len(path.split('.'))})
    with suppress(ValueError):  # the other options may say what is missing
        known = explicit(known)
    check_options(cfg, options, known)
    later = {path: value for path, value in options.items() if levels_found(known, path) > levels_found(cfg, path)}
    says_crop_size = 'crop_size' in cfg.model
    cfg.merge_from_dict({path: value for path, value in options.items() if path not in later})
    whole = completed(cfg, name)
    if 'model.crop_size' in options and not says_crop_size:
        cfg.model = {key: value for key, value in cfg.model.items() if key != 'crop_size'}
        if completed(cfg, name).model == whole.model:
            raise SystemExit(f'{name}: --cfg-options model.crop_size would change nothing, because the config says all '
                             'that follows from it. Change model.data_preprocessor.size, model.backbone.img_size, '
                             'model.test_cfg.crop_size and model.test_cfg.stride')
    whole.merge_from_dict(later)
    return completed(whole, name)


def find_incomplete(config: str) -> Config:
    """Reads a config as :func:`find_config` does, without what follows from its settings.

    Raises:
        SystemExit: there is no such config, or it is not a whole one, or a module that it imports is not there.
    """
    if file := config if is_shared(config) else find_config_file(config):
        try:
            cfg = load_config(file)
            if not cfg.get('model'):
                raise SystemExit(f'{config} has no model: it is not a whole config{base_hint(file)}')
        except (ImportError, ValueError) as error:
            raise SystemExit(str(error)) from error
        return cfg
    name = Path(config).stem
    if not name.startswith('cls_'):
        nearest = nearest_configs(config)
        meant = f'. Did you mean {" or ".join(nearest)}?' if nearest else ''
        raise SystemExit(f'there is no config {config}: it is neither a file nor a name of those in configs/, which '
                         f'{command_of("configs")} lists{meant}')
    from ..recipes import read_experiment
    try:
        return read_experiment(name)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    except ImportError as error:
        raise SystemExit(f'{config}: {error}{hint_for(error)}') from error


def base_hint(file: Path | None) -> str:
    """Returns what to add to what is said of a file that is no whole config: that it is a base, if it lies there."""
    return ('. It is a base, from which configs inherit, and not a whole config: '
            f'{command_of("configs")} lists those' if file and '_base_' in file.resolve().parts else '')


def load_config(file: str | Path) -> Config:
    """Reads a config of either of MMEngine's styles, with all that it imports.

    The modules in ``custom_imports`` and those that a config of the new style imports may lie beside the config. Where
    a config's own ``custom_imports`` have taken the place of ours, ours are put back. The config of an adapter file
    imports nothing else.

    Args:
        file: A config file, an adapter file, or ``hf://OWNER/NAME``.

    Raises:
        ValueError: it cannot be read as a config.
        ImportError: a module cannot be imported; the message says which, and why.
    """
    if is_shared(file):
        try:
            return shared_config(file)
        except ImportError as error:
            raise ImportError(f'{file}: {error}{hint_for(error)}') from error
    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
    except Exception as error:  # a config is Python, so any
        raise ValueError(f'{file} cannot be read as a config: {error}') from error
    custom = cfg.get('custom_imports') or {}
    own = own_modules(cfg.get('default_scope'))
    modules = custom.get('imports') or []
    modules = [modules] if isinstance(modules, str) else list(modules)
    if custom and not any(is_own(module) for module in modules):
        modules = cfg.custom_imports.imports = [*own, *modules]
    if cfg._imported_names or not all(map(is_own, modules)):
        look_beside(file)
    try:
        import_modules([*own, *(module for module in modules if module not in own)],
                       optional=custom.get('allow_failed_imports', False))
        return with_classes(cfg)
    except Exception as error:  # importing a module runs it, so any
        raise ImportError(f'{file}: {error}{hint_for(error)}') from error


def is_own(module: str) -> bool:
    """Returns whether a module is one of this package."""
    return module.partition('.')[0] == __name__.partition('.')[0]


def look_beside(file: str | Path) -> None:
    """Lets Python, and the workers it starts, find modules beside a config, after all others."""
    folder = str(Path(file).resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)


def import_modules(modules: Sequence[str], optional: bool) -> None:
    """Imports modules.

    Args:
        modules: Their names.
        optional: Whether to go on, with a warning, without those that cannot be imported.

    Raises:
        ImportError: the message says which module cannot be imported, and why.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            said = f'custom_imports names {module}, which cannot be imported: {error!r}'
            if not optional:
                raise ImportError(said) from error
            print_log(said, logger='current', level=logging.WARNING)


def hint_for(error: Exception) -> str:
    """Returns what helps against a failed import, for the end of a message, or ''."""
    missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
    if not isinstance(missing, ModuleNotFoundError):
        return ''
    if (missing.name or '').partition('.')[0] in ('mmpretrain', 'torchvision'):
        return '. Classification needs mmpretrain and torchvision; see "Install" in docs/get_started.md'
    return '. Modules are looked for beside the config and in PYTHONPATH'


def follow_protocol(cfg: Config, protocol: str) -> None:
    """Changes a config for another protocol of classification.

    Args:
        cfg: The config, which is changed.
        protocol: 'search_split' or 'authors_protocol'.

    Raises:
        SystemExit: there is no such protocol for this config.
    """
    from ..recipes import follow_the_authors, hold_out_for_search
    try:
        dict(search_split=hold_out_for_search, authors_protocol=follow_the_authors)[protocol](cfg)
    except ValueError as error:
        raise SystemExit(f'--{protocol.replace("_", "-")}: {error}') from error


def parse_settings(settings: Sequence[str]) -> dict[str, object]:
    """Returns the values of ``KEY=VALUE`` settings, as MMEngine reads them from a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *settings]).cfg_options


def find_launcher(launcher: str | None) -> str:
    """Returns the launcher that was asked for; where none was, that of which there are signs: torchrun, srun, none.

    Raises:
        SystemExit: 'pytorch' was asked for, but torchrun did not start this process.
    """
    under_torchrun = {'RANK', 'LOCAL_RANK', 'WORLD_SIZE'} <= os.environ.keys()
    if launcher == 'pytorch' and not under_torchrun:
        raise SystemExit('--launcher pytorch: start the tool with torchrun, as in torchrun --nproc-per-node 8 '
                         '-m mmseg_gpt train CONFIG')
    return launcher or ('pytorch' if under_torchrun else 'slurm' if under_srun() else 'none')


def set_scaling(cfg: Config) -> None:
    """Makes a config scale its learning rates by the batch over ``auto_scale_lr.base_batch_size``.

    The batch is ``train_dataloader.batch_size``, which all processes share; accumulated gradients do not count.

    Args:
        cfg: Is changed.

    Raises:
        SystemExit: the config does not say for which batch its learning rates are.
    """
    if not look_up(cfg, 'auto_scale_lr.base_batch_size'):
        raise SystemExit('--auto-scale-lr: the config does not say for which batch its learning rate is; add '
                         '--cfg-options auto_scale_lr.base_batch_size=N')
    cfg.auto_scale_lr.enable = True


def set_kept_features(cfg: Config, gigabytes: float | None) -> None:
    """Makes a config keep features of the frozen ViT, see :class:`.hooks.KeepFeaturesHook`.

    Args:
        cfg: Is changed.
        gigabytes: How large the file may become; None changes nothing.
    """
    if gigabytes is not None:
        cfg.keep_features = gigabytes


def set_resume(cfg: Config, resume: str | bool, overwrite: bool = False) -> None:
    """Makes a config resume a run, or refuses to write over one.

    Args:
        cfg: Is changed; its ``work_dir`` says where the run is.
        resume: A checkpoint file, True for the newest whole one in the work directory, or False for a new run.
        overwrite: Whether a new run may replace the checkpoints of an earlier one.

    Raises:
        SystemExit: the path is not a file; no checkpoint of the run is whole; or a new run, or one from another folder,
            would overwrite the checkpoints of an earlier one.
    """
    out_dir = look_up(cfg, 'default_hooks.checkpoint.out_dir')
    replaces = not (resume or cfg.get('resume'))
    if resume and cfg.get('load_from'):
        cfg.started_from = cfg.load_from  # its place is taken by the checkpoint that is resumed
    if isinstance(resume, str):
        if not Path(resume).is_file():
            raise SystemExit(f'--resume: there is no checkpoint {resume}')
        cfg.update(resume=True, load_from=resume)
        folder = Path(out_dir, Path(cfg.work_dir).name) if out_dir else Path(cfg.work_dir)
        replaces = Path(resume).parent.resolve() != folder.resolve()
    elif resume:
        try:
            newest = newest_checkpoint(cfg.work_dir, out_dir)
        except CheckpointError as error:
            raise SystemExit(f'--resume: {error}') from error
        if newest is None:
            print(f'--resume: {cfg.work_dir} holds no run, so this one starts from iteration 0')
        cfg.load_from = str(newest) if newest else cfg.get('load_from')
        cfg.resume = newest is not None
    if replaces and not overwrite and Path(cfg.work_dir, POINTER).exists():
        raise SystemExit(f'{cfg.work_dir} holds the checkpoints of an earlier run, which this one would overwrite. '
                         '--resume alone goes on with that run, --work-dir DIR writes elsewhere, --overwrite starts '
                         'over')

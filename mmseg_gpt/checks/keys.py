"""Checks of names: misspelt keys, which MMEngine would silently ignore."""

import inspect
from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher

from mmengine.config import Config
from mmengine.runner import Runner

from ..settings import levels_found, look_up

# What Runner.from_cfg and the rest of the stack read at the top level of a config.
TOP_LEVEL = {*inspect.signature(Runner).parameters, 'custom_imports', 'model_wrapper_cfg', 'compile', 'sync_bn',
             'find_unused_parameters', 'keep_features', 'activation_checkpointing', 'efficient_conv_bn_eval'} - {'cfg'}
# Read by tools/test.py, which says so where they are missing: "test_pipeline" is no slip of "tta_pipeline".
TTA = {'tta_model', 'tta_pipeline'}
VARIABLES = {'models'}  # of mmsegmentation's own configs, though it resembles "model"
# Sections whose keys are not arguments of anything, so that no constructor would refuse a wrong one.
SECTIONS = {
    'default_hooks': ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint',
                      'visualization'),
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit', 'tf32'),
    'optim_wrapper.paramwise_cfg': ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
                                    'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate'),
}
CUSTOM_KEY = ('lr_mult', 'decay_mult')
# Read by OpenMMLab 1.x, ignored by 2.x; its other names, such as "data" and "optimizer", are also common variables.
RENAMED = {'checkpoint_config': 'default_hooks.checkpoint', 'log_config': 'default_hooks.logger',
           'lr_config': 'param_scheduler', 'optimizer_config': 'optim_wrapper', 'dist_params': 'env_cfg.dist_cfg',
           'resume_from': 'load_from, with --resume'}
SIMILAR = 0.8  # a slip or two in a name of usual length


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the one of ``known`` that ``name`` may be a slip of, if any: as long, of mostly the same letters."""
    ratios = {k: SequenceMatcher(None, name, k).ratio() for k in known if abs(len(k) - len(name)) <= 2}
    best = max(ratios, key=ratios.get, default=None)
    return best if best is not None and ratios[best] >= SIMILAR else None


def misspelt(names: Iterable[str], known: Collection[str], where: str = '') -> list[str]:
    """Says which ``names`` are not ``known`` but resemble one that is."""
    return [f'"{where}{name}" is not a key that is read; is "{where}{near}" meant?' for name in names
            if name not in known and (near := nearest(name, known))]


def misspelt_keys(cfg: Config) -> list[str]:
    """Says which keys of a config are slips, or keys of OpenMMLab 1.x.

    Any name may be a variable of the config, so only those that resemble a key MMEngine reads are refused.
    """
    problems = misspelt(cfg.keys() - TTA - VARIABLES, TOP_LEVEL)
    problems += [f'"{name}" is a key of OpenMMLab 1.x and ignored by 2.x; use {new}'
                 for name, new in RENAMED.items() if cfg.get(name)]
    for section, known in SECTIONS.items():
        problems += misspelt(look_up(cfg, section) or (), known, f'{section}.')
    custom_keys = look_up(cfg, 'optim_wrapper.paramwise_cfg.custom_keys') or {}
    for name, options in custom_keys.items():
        problems += misspelt(options, CUSTOM_KEY, f'optim_wrapper.paramwise_cfg.custom_keys["{name}"].')
    return problems


def check_options(cfg: Config, options: Mapping[str, object], completed: Config | None = None) -> None:
    """Stops at a ``--cfg-options`` that would change nothing, or that cannot be applied.

    Args:
        cfg: The config as it is in the file.
        options: Values by dotted path. New names are allowed below the top level, unless they resemble one
            that is there.
        completed: The config with its model completed, whose settings may be named as well; None for ``cfg``.

    Raises:
        SystemExit: the message names each such option.
    """
    completed = completed or cfg
    problems = [f'  * {problem}' for path in options if (problem := wrong_in_both(cfg, completed, path))]
    if problems:
        raise SystemExit('Nothing was started, because these --cfg-options are wrong:\n\n' + '\n'.join(problems))


def wrong_in_both(cfg: Config, completed: Config, path: str) -> str | None:
    """Says what is wrong with an option that is neither in a config nor in its completed form, if anything is."""
    top, levels = path.partition('.')[0], len(path.split('.'))
    is_read = top in completed or top not in cfg  # completing drops variables that only join bases
    if is_read and levels in (levels_found(cfg, path), levels_found(completed, path)):
        return None
    return wrong_option(completed, path) or wrong_option(cfg, path)


def wrong_option(cfg: Config, path: str) -> str | None:
    """Says what is wrong with the path of an option, if anything is."""
    here, names = cfg._cfg_dict, path.split('.')
    for i, name in enumerate(names):
        parent = '.'.join(names[:i])
        if isinstance(here, list):
            if not name.isdigit() or int(name) >= len(here):
                return f'{path}: {parent} is a list of {len(here)}; its entries are 0 to {len(here) - 1}'
            here = here[int(name)]
        elif not isinstance(here, dict):
            return None if here is None else f'{path}: {parent} is {here!r}, which has no "{name}" in it'
        elif name not in here:
            return unknown_name(here, name, path, parent)
        else:
            here = here[name]
    return None


def unknown_name(here: dict, name: str, path: str, parent: str) -> str | None:
    """Says why a name that is not in a dict of the config cannot be put there, if so."""
    known = {*here, *TOP_LEVEL, *TTA} if not parent else here
    if name in known:
        return None
    near = nearest(name, known)
    if near:
        return f'{path}: there is no "{name}" in {parent or "the config"}; is "{near}" meant?'
    return None if parent else f'{path}: the config has no "{name}", and nothing reads such a key'

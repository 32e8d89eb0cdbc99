"""Configs as plain data: looked up by dotted keys, compared, and written as JSON."""

import copy
import inspect
import json
import sys
from collections.abc import Callable, Iterator

from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject

TESTED = ('test_dataloader', 'test_evaluator', 'test_cfg')  # settings of a test, beside the model's own test_cfg


class ConfigWithClasses(Config):
    """A config in which ``type`` may be a class or a function, whose text has the places they are imported from.

    MMEngine 0.10.7 writes the ``repr`` of a class into the text of a config, which is no Python.
    """

    def to_dict(self, keep_imported: bool = False) -> dict:
        """Returns plain data with ``'torch.optim.SGD'`` for the class; ``keep_imported`` has no effect here."""
        return with_places(self._cfg_dict)


def with_classes(cfg: Config) -> Config:
    """Imports what a config of MMEngine's new style names, and lets any config with classes in it be written.

    Args:
        cfg: A config from ``Config.fromfile`` or made of dicts.

    Returns:
        The config itself if there is no class in it; else one in which each imported name is what it stands for,
        without the names that its imports have left at the top level.

    Raises:
        ImportError: a name cannot be imported; the message says which, and where it stands.
    """
    if isinstance(cfg, ConfigWithClasses) or not any(map(is_object, flatten(lazily(cfg)).values())):
        return cfg
    names = [name for name in cfg if name not in cfg._imported_names]
    return ConfigWithClasses(ConfigDict({name: built(cfg[name]) for name in names}), filename=cfg.filename,
                             format_python_code=cfg._format_python_code)


def lazily(cfg: Config) -> dict:
    """Returns a config as plain dicts in which nothing of what it names has been imported."""
    return cfg._cfg_dict._to_lazy_dict()


def is_object(value: object) -> bool:
    """Returns whether a value of a config is a class or a function, or the name of something to be imported."""
    return isinstance(value, (type, LazyObject, LazyAttr)) or inspect.isroutine(value)


def built(value: object) -> object:
    """Returns a value of a config with all that it names imported."""
    if isinstance(value, dict):
        return {key: built(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(built(each) for each in value)
    return value.build() if isinstance(value, (LazyObject, LazyAttr)) else value


def with_places(value: object) -> object:
    """Returns plain data in which classes and functions stand as the places they are imported from."""
    if isinstance(value, dict):
        return {key: with_places(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(with_places(each) for each in value)
    return place_of(value) if is_object(value) else value


def place_of(value: type | Callable) -> str:
    """Returns where a class or a function can be imported from, as high in its package as it is offered."""
    parts = value.__module__.split('.')
    modules = ('.'.join(parts[:i]) for i in range(1, len(parts)))
    offered = (module for module in modules if getattr(sys.modules.get(module), value.__name__, None) is value)
    return f'{next(offered, value.__module__)}.{value.__qualname__}'


def type_name(settings: object, default: str = '') -> str:
    """Returns the name of the class that settings are for, without scope and module.

    Args:
        settings: A dict whose ``type`` is a name, as ``'mmseg.IoUMetric'``, or a class; or an object that is built
            already, whose class counts.
        default: The name where there is no ``type``.
    """
    if not isinstance(settings, dict):
        return default if settings is None else type(settings).__name__
    kind = settings.get('type') or default
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def look_up(cfg: Config | dict, path: str) -> object:
    """Returns the value at a dotted path, or None where there is none."""
    for name in path.split('.'):
        cfg = cfg.get(name) if isinstance(cfg, (Config, dict)) else None
    return cfg


def levels_found(cfg: Config, path: str) -> int:
    """Returns how many names of a dotted path lead somewhere in a config; all of them, if there is a value there."""
    here, names = cfg._cfg_dict, path.split('.')
    for level, name in enumerate(names):
        if isinstance(here, list) and name.isdigit() and int(name) < len(here):
            here = here[int(name)]
        elif isinstance(here, dict) and name in here:
            here = here[name]
        else:
            return level
    return len(names)


def settings_of(cfg: Config) -> str:
    """Returns a config as JSON: classes and functions become their names, and other objects text."""
    plain = cfg._cfg_dict.to_dict()
    return json.dumps(plain, default=lambda value: getattr(value, '__qualname__', None) or repr(value))


def protocol_of(cfg: Config) -> dict:
    """Returns the settings by which a model is tested, as plain types: the data, the metrics and the protocol."""
    settings = json.loads(settings_of(cfg))
    model = settings['model'].get('module', settings['model'])  # test-time augmentation wraps it
    return {key: settings.get(key) for key in TESTED} | dict(model_test_cfg=model.get('test_cfg'))


def changed(settings: dict, changes: dict[str, object]) -> dict:
    """Returns a copy of settings with other values at dotted paths."""
    cfg = Config(copy.deepcopy(dict(settings)))
    cfg.merge_from_dict(dict(changes))
    return cfg._cfg_dict


def flatten(value: object, name: str = '') -> dict[str, object]:
    """Turns nested dicts and lists into one dict of leaves: ``{'param_scheduler.0.end': 160000}``."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in items for k, v in flatten(item, f'{name}.{key}' if name else str(key)).items()}
    return {name: value}


def is_under(key: str, names: tuple[str, ...]) -> bool:
    """Says whether ``key`` is one of ``names`` or inside one."""
    return any(key == name or key.startswith(f'{name}.') for name in names)


def unwrapped_datasets(dataset: dict) -> Iterator[dict]:
    """Yields the configs of the datasets inside wrappers; a plain dataset config is its own."""
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if not all(isinstance(each, dict) for each in inner):
        yield dataset
        return
    for each in inner:
        yield from unwrapped_datasets(each)

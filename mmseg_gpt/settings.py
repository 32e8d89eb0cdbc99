"""Configs as plain data: looked up by dotted keys, compared, and written as JSON."""

import json
from collections.abc import Iterator

from mmengine.config import Config


def look_up(cfg: Config | dict, path: str) -> object:
    """Returns the value at a dotted path, or None where there is none."""
    for name in path.split('.'):
        cfg = cfg.get(name) if isinstance(cfg, (Config, dict)) else None
    return cfg


def settings_of(cfg: Config) -> str:
    """Returns a config as JSON; values that JSON cannot express become text."""
    return json.dumps(cfg.to_dict(), default=lambda value: getattr(value, '__qualname__', None) or repr(value))


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

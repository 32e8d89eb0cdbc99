"""Checks of ``type``: names that no module has registered, which would end in a traceback when the runner is built."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import HOOKS, METRICS, MODELS, VISUALIZERS, Registry

from ..settings import look_up
from .keys import nearest

PARTS = ('data_preprocessor', 'backbone', 'neck', 'decode_head', 'auxiliary_head', 'head')


def unknown_types(cfg: Config) -> list[str]:
    """Says which parts of the model, hooks, metrics and visualizers have a ``type`` that is not registered.

    Args:
        cfg: The whole config; its default scope must be the current one.
    """
    return [problem for registry, path, settings in typed(cfg) if (problem := unknown_type(registry, path, settings))]


def typed(cfg: Config) -> Iterator[tuple[Registry, str, dict]]:
    """Yields the settings that must have a registered ``type``, with their registry and their dotted path."""
    model, path = cfg.get('model'), 'model'
    while isinstance(model, dict):  # also what test-time augmentation wraps
        yield MODELS, path, model
        for name in PARTS:
            for where, part in each(model.get(name), f'{path}.{name}'):
                yield MODELS, where, part
        model, path = model.get('module'), f'{path}.module'
    for name, registry in (('custom_hooks', HOOKS), ('val_evaluator', METRICS), ('test_evaluator', METRICS),
                           ('visualizer', VISUALIZERS)):
        for where, settings in each(look_up(cfg, name), name):
            yield registry, where, settings


def each(settings: object, path: str) -> list[tuple[str, dict]]:
    """Returns settings, or those in a list of them, with their paths; what is built already is left out."""
    several = enumerate(settings) if isinstance(settings, (list, tuple)) else ()
    found = [(f'{path}.{i}', one) for i, one in several] or [(path, settings)]
    return [(where, one) for where, one in found if isinstance(one, dict) and one]


def unknown_type(registry: Registry, path: str, settings: dict) -> str | None:
    """Says that a ``type`` is not registered, and which one may be meant; None where it is, or cannot be told."""
    name = settings.get('type')
    if not isinstance(name, str):
        return None
    try:
        with registry.switch_scope_and_registry(None) as current:
            if current.get(name) is not None:
                return None
            known, there = set(), current
            while there is not None:
                known |= there.module_dict.keys()
                there = there.parent
    except Exception:  # a module that fails; building it says why
        return None
    near = nearest(name.rpartition('.')[2], known)
    return f'{path}.type: "{name}" is not registered' + (
        f'; is "{near}" meant?' if near else ': is the module that registers it in custom_imports?')

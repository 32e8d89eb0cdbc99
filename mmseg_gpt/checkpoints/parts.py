"""Finding the weights in what a training program saved.

A file can hold an optimizer and counters beside the weights, or the same model twice: as trained and averaged, or as
student and teacher. Their names can have steps of wrappers in them, such as DDP's ``module.``.
"""

from torch import Tensor

from ..wording import listed

# Keys under which programs save the weights of the model that they train or publish: MAE and DeiT, OpenMMLab and
# Lightning, the teacher of DINO, DeepSpeed, PyTorch's tutorials, and weights averaged over the training.
WRAPPERS = ('model', 'state_dict', 'teacher', 'module', 'model_state_dict', 'model_ema', 'state_dict_ema', 'ema')
# Steps that DDP and DeepSpeed, torch.compile, FSDP and activation checkpointing add to names.
TRANSPARENT = ('module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
# No program nests weights deeper; a file made to do harm could nest dicts without end.
DEEPEST = 5

Parts = dict[str, dict[str, Tensor]]


def parts_of(content: object) -> Parts:
    """Returns every dict in a file that holds arrays by name, by its keys joined by dots; '' is the whole file."""
    found: Parts = {}
    seen, waiting = set(), [('', content, 0)]
    for path, part, depth in waiting:  # which grows
        if not isinstance(part, dict) or id(part) in seen or depth > DEEPEST:
            continue
        seen.add(id(part))
        named = {name: value for name, value in part.items() if isinstance(name, str)}
        tensors = {name: value.detach() for name, value in named.items() if isinstance(value, Tensor)}
        if any(value.ndim for value in tensors.values()):
            found[path] = tensors
        waiting += [(f'{path}.{name}' if path else name, value, depth + 1) for name, value in named.items()]
    return found


def choose(parts: Parts, key: str | None = None) -> dict[str, Tensor]:
    """Returns the weights of the model in a file.

    Args:
        parts: What :func:`parts_of` found.
        key: The part to take, or the beginning of the names to take, which is then left out of them. None takes the
            only model under ``WRAPPERS``.

    Raises:
        ValueError: there is no such part, no model, or more than one; the message says what there is.
    """
    below = {path: path[len(key or ''):].strip('.') for path in parts if key is None or is_in(path, key)}
    if not below and key is not None:
        owner = max((path for path in parts if path and is_in(key, path)), key=len, default='')
        state = parts[owner] if owner else choose(parts)
        return names_under(state, key[len(owner):].strip('.'), parts)
    models = [path for path, rest in below.items() if key == path or all(step in WRAPPERS for step in steps(rest))]
    models = [path for path in models if not any(is_in(other, path) for other in models if other != path)]
    if len(models) > 1:
        raise ValueError(two_models(models))
    if models:
        return parts[models[0]]
    there = [repr(path) for path in parts if path]
    raise ValueError(f'holds no weights: expected names with tensors, or these under '
                     f'{" or ".join(map(repr, WRAPPERS))}' +
                     (f'. To take tensors from elsewhere in it ({listed(there)}), {how_to_choose()}' if there else ''))


def steps(name: str) -> list[str]:
    """Returns the steps of a dotted name; none if it is empty."""
    return name.split('.') if name else []


def is_in(path: str, outer: str) -> bool:
    """Says whether a dotted path is ``outer`` or in it."""
    return path == outer or not outer or path.startswith(f'{outer}.')


def bare(name: str) -> str:
    """Returns a name without the steps of wrappers."""
    return '.'.join(step for step in name.split('.') if step not in TRANSPARENT)


def names_under(state: dict[str, Tensor], prefix: str, parts: Parts) -> dict[str, Tensor]:
    """Returns the weights whose names begin with ``prefix`` and a dot, without these; wrappers may stand before it.

    Raises:
        ValueError: there is none; the message says what there is.
    """
    for shortened in (str, bare):
        names = {shortened(name): value for name, value in state.items()}
        if chosen := {name[len(prefix) + 1:]: value for name, value in names.items() if name.startswith(f'{prefix}.')}:
            return chosen
    first = sorted({bare(name).split('.')[0] for name in state})
    raise ValueError(f'has no part {prefix!r}: its parts are {listed([repr(path) for path in parts if path])}, and its '
                     f'names begin with {listed(first, 12)}')


def two_models(names: list[str]) -> str:
    """Says that a file holds several models, and how to choose one."""
    return f'holds {len(names)} models, under {" and ".join(map(repr, names))}: to choose one, {how_to_choose(names)}'


def how_to_choose(names: list[str] = ()) -> str:
    """Says how a config and the converter name the part of a file to take."""
    name = names[-1] if names else 'NAME'
    return (f"set init_cfg=dict(type='PretrainedViT', checkpoint=..., key='{name}'), or give --key {name} when "
            'converting')

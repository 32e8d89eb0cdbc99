"""Settings as Python, in lines that people can read and change."""

from collections.abc import Mapping

WIDTH = 110


def assignment(name: str, value: object) -> str:
    """Returns ``name = value`` as Python, on as many lines as it needs."""
    return f'{name} = {as_python(value, 0, len(name) + 3)}'


def as_python(value: object, indent: int = 0, used: int = 0) -> str:
    """Returns a value of a config as Python.

    Args:
        value: Dicts, lists, tuples and what ``repr`` writes; an :class:`Expression` stands as it is.
        indent: Spaces before its lines but the first.
        used: Characters that are taken on its first line.
    """
    short = on_one_line(value)
    if len(short) + indent + used <= WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return short
    inner = indent + 4
    if isinstance(value, Mapping) and are_names(value):
        parts = [f'{key}={as_python(each, inner, len(key) + 1)}' for key, each in value.items()]
        brackets = ('dict(', ')')
    elif isinstance(value, Mapping):
        parts = [f'{key!r}: {as_python(each, inner, len(repr(key)) + 2)}' for key, each in value.items()]
        brackets = ('{', '}')
    else:
        parts = filled([on_one_line(each) for each in value], inner) if are_short(value) else [
            as_python(each, inner) for each in value]
        brackets = ('[', ']') if isinstance(value, list) else ('(', ')')
    space = ' ' * inner
    return f'{brackets[0]}\n' + ''.join(f'{space}{part},\n' for part in parts).removesuffix(',\n') + brackets[1]


class Expression(str):
    """Python that stands in a config as it is, such as the name of a variable or a call."""


def on_one_line(value: object) -> str:
    """Returns a value as Python on one line."""
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, Mapping):
        if are_names(value):
            return f'dict({", ".join(f"{key}={on_one_line(each)}" for key, each in value.items())})'
        return f'{{{", ".join(f"{key!r}: {on_one_line(each)}" for key, each in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(on_one_line, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(on_one_line, value))}{", " if len(value) == 1 else ""})'
    return repr(value)


def are_names(settings: Mapping) -> bool:
    """Says whether keys can be written as arguments of ``dict``."""
    return all(isinstance(key, str) and key.isidentifier() for key in settings)


def are_short(values: list | tuple) -> bool:
    """Says whether several of the values fit on a line: numbers, names and colours."""
    return all(isinstance(value, (str, int, float)) or len(on_one_line(value)) < 20 for value in values)


def filled(parts: list[str], indent: int) -> list[str]:
    """Joins parts to lines that are as long as may be."""
    lines = ['']
    for part in parts:
        joined = f'{lines[-1]}, {part}' if lines[-1] else part
        if len(joined) + indent > WIDTH and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return lines

"""Numbers, lists and tables as people write them."""

from collections.abc import Iterable, Sequence


def listed(values: Sequence, most: int = 6) -> str:
    """Returns the first few of names or numbers, separated by commas."""
    return ', '.join(map(str, values[:most])) + (', ...' if len(values) > most else '')


def reason(error: Exception) -> str:
    """Says why a file cannot be read or written, in a message that names it already."""
    return getattr(error, 'strerror', None) or str(error)


def gist(message: str) -> str:
    """Returns the line of a message that says why: the first, and what it introduces if it ends in a colon.

    Of a list, that is the first entry, and how many more there are.
    """
    first, *rest = [line.strip() for line in message.splitlines() if line.strip()] or ['']
    if not (first.endswith(':') and rest):
        return first
    entries = [line for line in rest if line.startswith('* ')] if rest[0].startswith('* ') else rest[:1]
    more = f' (and {len(entries) - 1} more)' if len(entries) > 1 else ''
    return f'{first} {entries[0].removeprefix("* ")}{more}'


def duration(seconds: float) -> str:
    """Returns seconds as people say them: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds >= 2 * 3600:
        return f'{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min'
    return f'{seconds:.0f} s' if seconds < 60 else f'{int(seconds) // 60} min {int(seconds) % 60} s'


def bytes_in_words(number: int) -> str:
    """Returns a number of bytes as people say it: ``38 KiB``, ``4.2 MiB``."""
    return f'{number / 2**20:,.1f} MiB' if number >= 2**20 else f'{number / 2**10:,.0f} KiB'


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Returns a table as Markdown; its columns but for the first ``left`` are aligned to the right, as numbers are.

    PrettyTable's Markdown pads all cells of a column, so that one long cell would change every line of a table.
    """
    rules = ['---'] * left + ['---:'] * (len(header) - left)
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (header, rules, *rows))

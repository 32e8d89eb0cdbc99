"""Folders of files for tests of what is found in them."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / 'shared'


def make_files(root: Path, names: str | list[str]) -> Path:
    """Writes files, each with content of its own; '{1..3}' in a name stands for three names."""
    for name in names.split() if isinstance(names, str) else names:
        for each in spelt_out(name):
            path = root / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(each)
    return root


def spelt_out(name: str) -> list[str]:
    """Returns the names for which 'a{1..3}.png' stands."""
    if '{' not in name:
        return [name]
    before, _, rest = name.partition('{')
    numbers, _, after = rest.partition('}')
    first, _, last = numbers.partition('..')
    return [f'{before}{i:0{len(first)}}{after}' for i in range(int(first), int(last) + 1)]


def counts(found) -> dict[str, int]:
    """Returns the number of pairs of each split."""
    return {split: len(pairs) for split, pairs in found.splits.items()}

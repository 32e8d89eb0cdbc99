"""Runs that only pretend, in files that processes of a cluster can import: each notes that it was carried out."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SCRIPT = str(Path(__file__))


class Stub(NamedTuple):
    """A run that notes its begin and its end in ``calls``, with ``seconds_of_work`` between them."""
    name: str
    seconds_of_work: float = 0.
    fails: bool = False
    seconds = None

    @property
    def title(self) -> str:
        """The name."""
        return self.name

    def identity(self) -> dict:
        """What decides the result."""
        return dict(settings=dict(name=self.name), pretrained=None)

    def commands(self, folder: Path) -> Iterator[list[str]]:
        """This script."""
        yield ['python', SCRIPT, str(folder), str(self.seconds_of_work), *(['fail'] if self.fails else [])]

    def numbers(self, folder: Path) -> dict[str, float]:
        """A number that the script has left."""
        return dict(number=json.loads((folder / 'number.json').read_text())['number'])


def note(folder: Path, what: str) -> None:
    """Appends a line."""
    with (folder / 'calls').open('a') as calls:
        calls.write(f'{what}\n')


def main(folder: Path, seconds: float, *options: str) -> None:
    """Does what a stub does."""
    note(folder, 'begun')
    time.sleep(seconds)
    if 'fail' in options:
        sys.exit('out of luck')
    found = dict(number=1, gpus=os.environ.get('CUDA_VISIBLE_DEVICES'))
    (folder / 'number.json').write_text(json.dumps(found))
    note(folder, 'ended')


if __name__ == '__main__':
    main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])

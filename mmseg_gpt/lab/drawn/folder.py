"""A folder of files that are drawn once; a manifest in it says what it holds."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import count
from pathlib import Path

from ...environment import available_cpus
from ...processes import in_processes

MANIFEST = 'manifest.json'
Progress = Callable[[int, int], None]


def draw_files(root: Path, settings: dict, jobs: Mapping[Hashable, list[Path]], write: Callable[[Hashable], None],
               progress: Progress = lambda done, total: None, processes: int | None = None) -> bool:
    """Draws the files of a dataset, unless they are there.

    Args:
        root: Folder of the dataset; its ``manifest.json`` holds ``settings`` when all is drawn.
        settings: Everything that decides the drawings. If the manifest holds other settings, all is drawn anew.
        jobs: The files that each call of ``write`` makes, by its argument.
        write: Function that draws one job; it runs in other processes.
        progress: Called with the number of jobs done and the number of all jobs.
        processes: Processes to draw with; default one for each CPU.

    Returns:
        bool: False if the dataset was there already.

    Raises:
        FileExistsError: ``root`` holds images that this function has not drawn.
    """
    files = [file for each in jobs.values() for file in each]
    if read_manifest(root) == dict(complete=True, **settings) and all(file.is_file() for file in files):
        return False
    clear(root, {(file.parent, file.suffix): None for file in files})
    (root / MANIFEST).write_text(json.dumps(dict(complete=False)))  # marks the files as ours, should this be stopped
    with in_processes(write, jobs, processes or available_cpus(), chunk=16) as done:
        for number, _ in zip(count(1), done):
            progress(number, len(jobs))
    (root / MANIFEST).write_text(json.dumps(dict(complete=True, **settings), indent=2) + '\n')
    return True


def read_manifest(root: Path) -> dict | None:
    """Returns the manifest of a dataset, or None if there is none that can be read."""
    try:
        return json.loads((root / MANIFEST).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def clear(root: Path, kinds: Iterable[tuple[Path, str]]) -> None:
    """Makes the folders and deletes images with a suffix that were drawn earlier; refuses to delete any others."""
    for folder, suffix in kinds:
        folder.mkdir(parents=True, exist_ok=True)
        old = list(folder.glob(f'*{suffix}'))
        if old and not (root / MANIFEST).is_file():
            raise FileExistsError(f'{folder} holds images but {root / MANIFEST} does not exist, so they are not a '
                                  'sample dataset: choose another folder')
        for path in old:
            path.unlink()

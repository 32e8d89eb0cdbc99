"""What results depend on besides settings: the machine, and the versions of what ran on it."""

import functools
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping

import torch

from ..environment import cpu_name, installed_versions
from ..resources import CLONE, HOME


@functools.cache
def machine() -> dict[str, object]:
    """Returns the device, and the versions of packages, which takes a second."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return dict(device=device, python=platform.python_version(),
                versions=installed_versions('torch', 'mmengine', 'mmseg', 'mmpretrain', 'numpy'))


def made_with(before: Mapping | None = None) -> dict[str, object]:
    """Returns the device, and the versions of packages and of this repository, as they are now.

    Args:
        before: What this gave at the last start of a run that goes on now; what was other then is kept as ``earlier``.
    """
    now, earlier = dict(machine(), commit=commit()), []
    for each in each_start(before) if before else ():
        if each not in (now, *earlier):
            earlier.append(each)
    return dict(now, earlier=earlier) if earlier else now


def each_start(origin: Mapping) -> list[dict]:
    """Returns what a run was made with at each of its starts, as far as it was another."""
    return [*origin.get('earlier', ()), {key: value for key, value in origin.items() if key != 'earlier'}]


def origins(found: Iterable[Mapping]) -> dict[str, list[str]]:
    """Returns each device, commit, version of Python and version of a package in what :func:`made_with` gave."""
    found = [each for origin in found for each in each_start(origin)]
    said = {key: sorted({origin[key] for origin in found if origin[key]}) for key in ('device', 'commit', 'python')}
    versions = {f'{name} {version}' for origin in found for name, version in origin['versions'].items()}
    return dict(said, versions=sorted(versions))


def commit() -> str | None:
    """Returns this repository's commit, with '-dirty' where files were changed.

    Returns:
        None for a copy without its history, as an installed package is, which may lie inside another repository.
    """
    if HOME != CLONE or not (CLONE / '.git').exists() or not shutil.which('git'):
        return None
    said = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=CLONE, capture_output=True,
                          text=True, check=False)
    return said.stdout.strip() or None

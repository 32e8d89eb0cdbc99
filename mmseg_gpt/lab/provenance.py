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
def made_with() -> dict[str, object]:
    """Returns the device, and the versions of packages and of this repository, which takes a second."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return dict(device=device, python=platform.python_version(), commit=commit(),
                versions=installed_versions('torch', 'mmengine', 'mmseg', 'mmpretrain', 'numpy'))


def origins(found: Iterable[Mapping]) -> dict[str, list[str]]:
    """Returns each device, commit, version of Python and version of a package in what :func:`made_with` gave."""
    found = list(found)
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

"""What results depend on besides settings: the machine, and the versions of what ran on it."""

import functools
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from ..environment import cpu_name, installed_versions


@functools.cache
def made_with() -> dict[str, object]:
    """Returns the device, and the versions of packages and of this repository, which takes a second."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return dict(device=device, python=platform.python_version(), commit=commit(),
                versions=installed_versions('torch', 'mmengine', 'mmseg', 'mmpretrain', 'numpy'))


def commit() -> str | None:
    """Returns this repository's commit, with '-dirty' where files were changed; None for a copy without its history."""
    if not shutil.which('git'):
        return None
    said = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=Path(__file__).parent, capture_output=True,
                          text=True, check=False)
    return said.stdout.strip() or None

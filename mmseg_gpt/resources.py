"""The configs and tools that belong to the package: in a clone beside it, in an installed wheel inside it."""

from pathlib import Path

CLONE = Path(__file__).parents[1]
INSTALLED = Path(__file__).parent / '.mim'  # where OpenMMLab's package manager looks for them too
HOME = INSTALLED if INSTALLED.is_dir() else CLONE
CONFIGS, TOOLS = HOME / 'configs', HOME / 'tools'

"""Running the benchmark again as a process of its own: with another allocator, or to see the memory of one variant."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# glibc's settings are read when a process starts. No-fault: memory that was freed is kept instead of being given back
# to the system and faulted in again, page by page.
ALLOCATORS = {
    'default': {},
    'no-fault': {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '100000000000'},
}


def run_again(command: list[str], allocator: str = 'default') -> dict:
    """Runs a command of the benchmark with an allocator, and returns what it measured.

    Args:
        command: The tool and its arguments.
        allocator: One of ``ALLOCATORS``.

    Raises:
        SystemExit: it failed; its own message was printed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'results.json')
        result = subprocess.run([sys.executable, *command, '--json', str(out)], stdout=subprocess.DEVNULL,
                                env={**environment, **ALLOCATORS[allocator]})
        if result.returncode:
            raise SystemExit(f'the benchmark failed as a process of its own: {" ".join(command)}')
        return json.loads(out.read_text())

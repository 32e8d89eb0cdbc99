"""Running the benchmark again in a new process, to use another allocator or to measure the memory of one variant."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# glibc reads its settings when a process starts. No-fault keeps freed memory instead of giving it back to the system
# and faulting it in again, page by page.
ALLOCATORS = {
    'default': {},
    'no-fault': {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '100000000000'},
}


def run_again(command: list[str], allocator: str = 'default') -> dict:
    """Runs a command of the benchmark with an allocator, and returns its measurements.

    Args:
        command: The tool and its arguments.
        allocator: One of ``ALLOCATORS``.

    Raises:
        SystemExit: the command failed; its own message was printed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'results.json')
        result = subprocess.run([sys.executable, *command, '--json', str(out)], stdout=subprocess.DEVNULL,
                                env={**environment, **ALLOCATORS[allocator]})
        if result.returncode:
            raise SystemExit(f'the benchmark failed in a new process: {" ".join(command)}')
        return json.loads(out.read_text())

"""Commands as forks of one process, which has imported torch and OpenMMLab's packages: a start takes no seconds.

For further commands of a test. That each command works in an interpreter of its own is tested too.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, get_all_start_methods, get_context, set_start_method
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from unittest import mock

from mmseg_gpt.lab.runs.processes import redirect, start_server

SERVER = forkserver.ForkServer()  # not the one of a test before, which may have imported less


def run_fork(folder: Path, script: Path, *arguments: object) -> CompletedProcess:
    """Runs ``python SCRIPT ARGUMENTS...`` in ``folder``; ``stdout`` holds all that was printed, errors too."""
    command = [str(script), *map(str, arguments)]
    ours = {name: getattr(SERVER, name) for name in (
        'ensure_running', 'connect_to_new_process', 'set_forkserver_preload')}
    with TemporaryDirectory() as place, mock.patch.multiple(forkserver, **ours):
        assert start_server(1)
        log = Path(place, 'log')
        process = get_context('forkserver').Process(target=become, args=(command, folder, log, dict(os.environ)))
        process.start()
        process.join()
        return CompletedProcess(command, process.exitcode, log.read_text())


def become(command: Sequence[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    """Goes on as a script with its arguments would."""
    with log.open('ab') as output:
        redirect(output)
    set_start_method(get_all_start_methods()[0], force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [*command]
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name='__main__')

"""Starting commands: as processes of their own, or as forks of one that has imported what all of them import.

Either way a command has its output in a log, reports events to a file (see :mod:`mmseg_gpt.events`), and gets no Ctrl-C
from the terminal: it has a session of its own, and whoever started it passes the signal on. Otherwise it would get
SIGINT beside our SIGTERM, and a run takes the first signal to save, and the second to stop at once.
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import (
    forkserver,
    get_all_start_methods,
    get_context,
    parent_process,
    reduction,
    set_start_method,
)
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO, Protocol

import torch

from ... import events
from ...checks.machine import visible_gpus
from ...environment import available_cpus
from .claim import FolderClaim

# All that this module, training and testing import; what is missing here is imported by every command again.
IMPORTED = ('mmseg_gpt.lab.runs', 'mmseg_gpt.segmentation', 'mmseg_gpt.classification.datasets', 'mmseg.apis',
            'mmpretrain.models', 'mmpretrain.engine', 'mmpretrain.evaluation', 'mmpretrain.visualization',
            'mmseg.engine', 'matplotlib.figure', 'matplotlib.backends.backend_agg', 'torch.profiler', 'torch._dynamo',
            'torch.utils.cpp_extension')
LIBC = ctypes.CDLL(None)
# They number the processes of a job; a command that one of these starts is no part of the job.
RANKS = ('SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


class Process(Protocol):
    """A command that has been started."""

    def poll(self) -> int | None:
        """Returns the exit status, negative where a signal ended it; None while it runs."""

    def terminate(self) -> None:
        """Asks it to end, with SIGTERM."""

    def kill(self) -> None:
        """Ends it at once."""


Start = Callable[[Sequence[str], Path, Path, FolderClaim, str | None], Process]  # start_process, or start_fork


def environment(jobs: int) -> dict[str, str]:
    """Returns the environment of commands of which ``jobs`` run at once, in which what the user has set counts."""
    # Passive: threads that spin while they wait make everything slow where the CPUs are shared.
    return {'OMP_NUM_THREADS': str(max(1, min(available_cpus() // jobs, 8))), 'OMP_WAIT_POLICY': 'PASSIVE',
            'PYTHONWARNINGS': 'ignore', **{key: value for key, value in os.environ.items() if key not in RANKS}}


def gpus_of_this_process() -> list[str]:
    """Returns the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    named = visible_gpus()
    if named is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [name for name in named.split(',') if name]


def start_process(jobs: int, command: Sequence[str], log: Path, reports: Path, lock: FolderClaim,
                  gpu: str | None = None) -> Process:
    """Starts a command from the current folder, with this Python.

    On Linux it is asked to end should this process vanish.

    Args:
        jobs: How many commands run at once.
        command: ``python``, a script and its arguments.
        log: Its output is written behind what is there.
        reports: The file of its events.
        lock: The claim to the run's folder, whose lock it holds as well.
        gpu: The only one that it sees; None for all.
    """
    with log.open('ab') as output:
        return subprocess.Popen([sys.executable, *command[1:]], stdin=subprocess.DEVNULL, stdout=output,
                                stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[lock.fileno()],
                                preexec_fn=end_with_parent,
                                env={**environment(jobs), **only(gpu), events.VARIABLE: str(reports.absolute())})


def only(gpu: str | None) -> dict[str, str]:
    """Returns the variable that lets a command see one GPU only."""
    return {} if gpu is None else {'CUDA_VISIBLE_DEVICES': gpu}


def start_gently(command: Sequence[str], log: Path, reports: Path, lock: FolderClaim,
                 gpu: str | None = None) -> Process:
    """Starts a command of a cluster's job as :func:`start_process` does, which is asked to end by SIGUSR2.

    A cluster may send SIGTERM to all processes of a job. A training takes the second SIGTERM as an order to end without
    saving, but any number of SIGUSR2 as one request.
    """
    process = start_process(1, command, log, reports, lock, gpu)
    process.terminate = partial(process.send_signal, signal.SIGUSR2)
    return process


def end_with_parent() -> None:
    """Lets the system send SIGTERM to this process when the one that has started it ends."""
    if sys.platform == 'linux':
        LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def start_server(jobs: int) -> bool:
    """Starts the process of which forks are made, unless it runs. It imports torch and OpenMMLab's packages once.

    It must have no CUDA context, which forks could not use: PYTORCH_NVML_BASED_CUDA_CHECK lets it see whether there is
    a GPU without one.

    Returns:
        Whether it works; it does not where an import fails otherwise than by an ImportError.
    """
    get_context('forkserver').set_forkserver_preload(list(IMPORTED))
    before = dict(os.environ)
    os.environ.update(environment(jobs), PYTORCH_NVML_BASED_CUDA_CHECK='1')
    try:
        forkserver.ensure_running()
        first = get_context('forkserver').Process(target=int)  # starts when the imports are done
        first.start()
        first.join()
    except (EOFError, OSError):  # the server has ended
        return False
    finally:
        os.environ.clear()
        os.environ.update(before)
    return True


def start_fork(command: Sequence[str], log: Path, reports: Path, lock: FolderClaim, gpu: str | None = None) -> Process:
    """Starts a command as :func:`start_process` does, as a fork of the server: what that has imported is there."""
    process = get_context('forkserver').Process(
        target=become, args=(command[1:], log.absolute(), reports.absolute(), Held(lock), gpu))
    process.start()
    return Fork(process)


class Fork:
    """A fork of the server; a :class:`Process`."""

    def __init__(self, process: BaseProcess) -> None:
        self.process, self.terminate, self.kill = process, process.terminate, process.kill

    def poll(self) -> int | None:
        """Returns the exit status, negative where a signal ended it; None while it runs."""
        return self.process.exitcode


class Held:
    """An open file that stays open in the process that this is sent to, until that ends."""

    def __init__(self, file: FolderClaim) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        reduction.DupFd(self.file.fileno())  # sends it along; there, nobody needs to know its number
        return type(None), ()


def become(script: Sequence[str], log: Path, reports: Path, lock: None, gpu: str | None) -> None:
    """Goes on as a script with its arguments would, with its output in a log."""
    os.setsid()
    threading.Thread(target=end_with_client, daemon=True).start()
    with log.open('ab') as output:
        redirect(output)
    set_start_method(get_all_start_methods()[0], force=True)  # the usual one, not that by which this was started
    os.environ.update(only(gpu), **{events.VARIABLE: str(reports)})
    sys.argv = list(script)
    sys.path.insert(0, str(Path(script[0]).parent))
    runpy.run_path(script[0], run_name='__main__')


def end_with_client() -> None:
    """Sends SIGTERM to this process when the one ends that has asked the server for it; the server itself lives on."""
    parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def redirect(output: BinaryIO) -> None:
    """Lets all that this process prints go to a file."""
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(output.fileno(), number)
        setattr(sys, name, open(number, 'w', buffering=1, closefd=False))  # noqa: SIM115

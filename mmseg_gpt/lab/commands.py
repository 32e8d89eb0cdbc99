"""Running our tools as processes of their own, with their output in a log and one line that shows how far they are."""

import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..environment import available_cpus

Execute = Callable[..., int]  # run_command or run_forked


def run_command(command: Sequence[str], log: Path, show: Callable[[str], None], keep: bool = False,
                pass_fds: Sequence[int] = ()) -> int:
    """Runs a command to its end, and returns its exit status.

    Args:
        command: ``python``, a script and its arguments, run from the current folder with this Python.
        log: Where its output goes.
        show: Is given each line of that.
        keep: Leave what is in the log, and write behind it.
        pass_fds: Files that the command holds open as well.

    Raises:
        KeyboardInterrupt: Ctrl-C; the command was asked to end and has ended.
    """
    # Passive: threads that spin while they wait make everything slow where the CPUs are shared.
    environment = {'OMP_NUM_THREADS': str(min(available_cpus(), 8)), 'OMP_WAIT_POLICY': 'PASSIVE',
                   'PYTHONWARNINGS': 'ignore', **os.environ}
    # In a session of its own it gets no Ctrl-C from the terminal beside our SIGTERM: a run takes the first signal to
    # save, and the second to stop at once.
    with log.open('a' if keep else 'w') as file, subprocess.Popen(
            [sys.executable, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace', env=environment, start_new_session=True, pass_fds=pass_fds) as process:
        try:
            for line in process.stdout:
                file.write(line)
                show(line)
        except KeyboardInterrupt:
            process.terminate()
            file.writelines(process.stdout)  # until it has ended
            raise
    return process.returncode


def run_forked(command: Sequence[str], log: Path, show: Callable[[str], None], keep: bool = False,
               pass_fds: Sequence[int] = ()) -> int:
    """As :func:`run_command`, in a fork of this process: what it has imported need not be imported again.

    Only for a process that has imported but not computed yet: a fork has none of the threads that computing starts.

    Args:
        command: ``python``, a script and its arguments.
        log: Where its output goes.
        show: Is given nothing.
        keep: Leave what is in the log, and write behind it.
        pass_fds: Open in a fork as well.

    Raises:
        KeyboardInterrupt: the command was asked to end and has ended.
    """
    with log.open('a' if keep else 'w') as file:
        process = multiprocessing.get_context('fork').Process(target=become, args=(command[1:], file.fileno()))
        process.start()
        try:
            process.join()
        except KeyboardInterrupt:
            process.terminate()
            process.join()
            raise
    return process.exitcode


def become(script: Sequence[str], log: int) -> None:
    """Goes on as a script with its arguments would, with its output in a file."""
    os.setsid()  # as run_command does
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the process does with it that this is a fork of
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        os.dup2(log, number)
        setattr(sys, name, open(number, 'w', buffering=1, closefd=False))  # noqa: SIM115
    sys.argv = list(script)
    sys.path[0] = str(Path(script[0]).parent)
    runpy.run_path(script[0], run_name='__main__')


class LiveLine:
    """One line of the terminal that shows how far a command is; a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self.last = 0.

    def show(self, line: str) -> None:
        """Prints what ``line`` of a log says about progress, if anything, every few seconds."""
        text, now = condense(line), time.time()
        if not text or now - self.last < (0.2 if sys.stdout.isatty() else 5):
            return
        self.last = now
        print(f'\r\033[K      {text}' if sys.stdout.isatty() else f'      {text}',
              end='' if sys.stdout.isatty() else '\n', flush=True)

    def end(self, text: str) -> None:
        """Puts ``text`` in the place of the line."""
        self.last = 0.
        print(('\r\033[K' if sys.stdout.isatty() else '') + f'      {text}', flush=True)


def condense(line: str) -> str | None:
    """The part of a log line that shows progress: ``train 120/300, eta 0:01:12, loss 0.61``; else None."""
    if match := re.search(r'(?:Iter|Epoch)\((\w+)\)\s+(?:\[\s*(\d+)\])?\[\s*(\d+/\d+)\]', line):
        epoch = f'epoch {match[2]}, ' if match[2] else ''
        values = [f'{key} {value}' for key, value in re.findall(r'\b(eta|loss|mIoU|accuracy/top1): (\S+)', line)]
        return ', '.join([f'{match[1]} {epoch}{match[3]}', *values])
    match = re.match(r'\d+/\d+ images drawn', line)
    return match[0] if match else None

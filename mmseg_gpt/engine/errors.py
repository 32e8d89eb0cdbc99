"""How an error ends one of our tools: in words for people, and as a code for the process that started the tool."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, Signals
from traceback import format_exception_only

from mmengine.logging import MMLogger

from ..checkpoints import CheckpointError
from ..datasets import SampleError
from ..events import report
from ..files import FolderError


class RunStopped(RuntimeError):
    """A hook has ended the run.

    Args:
        code: The reason in a word, for programs: 'not-finite', 'loss-scaling' or 'nothing-labelled'.
        message: The reason for people, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return self.args[1]


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Ends the process with an error's message, without a traceback, where the message says all; the log gets it too.

    Whatever the error, it is reported as the event ``stopped``, with its message and one of these codes: that of a
    :class:`RunStopped`; 'checkpoint' or 'sample' for a file that is wrong; 'refused' where a check has said what is
    wrong, or a folder cannot be used; 'signal', with the signal's name as the message; 'crashed' for all that nobody
    has foreseen.

    Raises:
        SystemExit: in the place of errors of checkpoints, folders, samples and hooks.
    """
    try:
        yield
    except (CheckpointError, FolderError, RunStopped, SampleError) as error:
        words = str(error).rpartition('SampleError: ')[2]  # a worker process puts its traceback before it
        report('stopped', code=code_of(error), message=words)
        log_to_files(words)
        raise SystemExit(words) from error
    except SystemExit as error:
        report_exit(error.code)
        raise
    except KeyboardInterrupt:
        report('stopped', code='signal', message=SIGINT.name)
        raise
    except BaseException as error:
        last_line = ''.join(format_exception_only(error)).strip().splitlines()[-1]
        report('stopped', code='crashed', message=last_line)
        raise


def code_of(error: CheckpointError | FolderError | RunStopped | SampleError) -> str:
    """Returns the code under which an error that has its own words is reported."""
    if isinstance(error, RunStopped):
        return error.code
    if isinstance(error, FolderError):
        return 'refused'
    return 'checkpoint' if isinstance(error, CheckpointError) else 'sample'


def report_exit(status: str | int | None) -> None:
    """Reports why the tool ends by itself: a message of a check, or 128 and a signal's number; success is no reason."""
    if isinstance(status, str):
        report('stopped', code='refused', message=status)
    elif status and status - 128 in set(Signals):
        report('stopped', code='signal', message=Signals(status - 128).name)
    elif status:
        report('stopped', code='refused', message=f'exit status {status}')


def log_to_files(words: str) -> None:
    """Writes an error into the log files, and not to the terminal, where Python prints it when the process ends."""
    logger = MMLogger.get_current_instance()
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, words, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)

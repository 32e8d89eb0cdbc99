"""What processes tell each other while they work: lines of JSON in a file, so that nobody has to read their logs.

Whoever starts one of our tools names a file in the environment variable ``MMSEG_GPT_EVENTS`` and reads it as it grows.
Each line is one event: its name under ``event``, and its facts. The tools report

* ``progress``: ``phase`` ('train', 'val' or 'test'), iterations ``done`` and in ``total``, ``seconds_left`` of the
  phase, and what is known of ``loss``, ``mIoU`` and ``accuracy/top1``; at most 5 times a second, and at a phase's end.
* ``parameters``: how many are ``trained``, how many there are in ``total``, and both for each part in ``parts``.
* ``validated``: the ``iteration``, and the ``metrics`` of a validation in training.
* ``features``: whether the features of training images are ``kept`` with ``keep_features``, how many images were
  ``seen`` and ``read``, and both of validations; when a training ends, or gives up keeping them.
* ``metrics``: what tools/test.py wrote into metrics.json.
* ``stopped``: ``code`` and ``message`` of what ended the tool; see :func:`mmseg_gpt.engine.errors.errors_in_words`.
"""

import json
import math
import os
from contextlib import suppress
from pathlib import Path

from .environment import is_first_process

VARIABLE = 'MMSEG_GPT_EVENTS'


def are_wanted() -> bool:
    """Returns whether somebody listens, and this process is the one that speaks: the first, or the only one."""
    return bool(os.environ.get(VARIABLE)) and is_first_process()


def report(event: str, /, **facts: object) -> None:
    """Appends an event to the file that ``MMSEG_GPT_EVENTS`` names; does nothing where it is not set.

    A file that cannot be written is no reason to end a run: the event is lost then.

    Args:
        event: Its name.
        **facts: What JSON can hold; numbers that are not finite become null.
    """
    if not are_wanted():
        return
    line = json.dumps(without_nan({'event': event, **facts}), default=str) + '\n'
    with suppress(OSError):
        descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())  # in one piece, whoever else writes
        finally:
            os.close(descriptor)


def read_events(path: str | Path, start: int = 0) -> tuple[list[dict], int]:
    """Reads the events that have been reported since the last time.

    Args:
        path: The file; there are no events while it does not exist.
        start: The number of bytes that have been read before.

    Returns:
        The events in their order, and the number of bytes to begin with next time. A line that is not whole yet is
        left for then; one that is no event, or broken, as a full disk leaves it, is passed over.
    """
    with suppress(FileNotFoundError), open(path, 'rb') as file:
        file.seek(start)
        whole, newline, _ = file.read().rpartition(b'\n')
        events = []
        for line in whole.split(b'\n'):
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get('event'), str):
                    events.append(event)
        return events, start + len(whole) + len(newline)
    return [], start


def without_nan(value: object) -> object:
    """Returns a copy of plain data in which None stands for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Reading what a run has logged: the scalars that MMEngine's ``LocalVisBackend`` keeps, over all its resumptions."""

import json
from pathlib import Path

SCALARS = '*/vis_data/scalars.json'


def read_scalars(folder: Path) -> tuple[list[dict], list[dict]]:
    """Returns what was logged in the work directory of a run, in order.

    A resumed run has a log for each start. Where two of them overlap, as after a run was killed, the later one counts:
    its weights came to something. Several lines of one step become one.

    Args:
        folder: The work directory.

    Returns:
        tuple: The lines of training, by iteration (from 1, 0 is before the first); and those of validation, by
        iteration, or by epoch in runs that count epochs. Each is a dict with ``step``.

    Raises:
        ValueError: nothing was logged there, or a log is damaged; the message names the file.
    """
    files = sorted(folder.glob(SCALARS))  # their folders are named so, see name_of_start
    if not files:
        raise ValueError(f'{folder} is not the work directory of a training: there is no {SCALARS} in it')
    training: dict[int, dict] = {}
    validation: dict[int, dict] = {}
    for file in files:
        lines = read_lines(file)
        trained = [line for line in lines if 'iter' in line]
        if trained:
            # Validations are by epoch in the log of a run that counts epochs.
            first, epoch = (min((line[key] for line in trained if key in line), default=None)
                            for key in ('step', 'epoch'))
            training = {step: line for step, line in training.items() if step < first}
            validation = {step: line for step, line in validation.items() if step < (epoch or first)}
        for line in lines:
            known = training if 'iter' in line else validation
            known.setdefault(line['step'], {}).update(line)
    return [training[step] for step in sorted(training)], [validation[step] for step in sorted(validation)]


def read_lines(file: Path) -> list[dict]:
    """Returns the lines of a log that have a ``step``; the last line may have been cut off by a kill."""
    lines = file.read_bytes().splitlines()
    read = []
    for number, line in enumerate(lines, 1):
        try:
            read.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            if number < len(lines):
                raise ValueError(f'{file}, line {number} is damaged: {error}') from error
    return [line for line in read if 'step' in line]

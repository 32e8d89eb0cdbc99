"""Writing a checkpoint so that its file is whole at every moment, be it the old one or the new one."""

from pathlib import Path

import torch
from torch import Tensor

from ..files import replacing
from ..wording import listed, reason
from .plain_types import to_plain
from .read import CheckpointError
from .seal import seal


def write_checkpoint(content: dict, path: str | Path) -> None:
    """Saves ``content`` in plain types and sealed as the file ``path``, or leaves the file there as it was.

    The file is written beside ``path`` and renamed when all of it is on the disk.

    Args:
        content: Nested containers of values that :func:`mmseg_gpt.checkpoints.plain_types.to_plain` takes.
        path: A local file; its folder is made if need be.

    Raises:
        CheckpointError: a weight is not finite, or the file cannot be written; the message says why.
    """
    path = Path(path)
    content = to_plain(content)
    refuse_non_finite(content.get('state_dict', {}), path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            with open(unfinished, 'wb') as file:
                torch.save(content, file)
            seal(unfinished)
    # torch turns the operating system's errors into RuntimeErrors of its own.
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f'{path} could not be written: {cause_of(error)}. The checkpoints written before are '
                              'intact: make room or set the permissions, then go on with --resume') from error


def refuse_non_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raises a CheckpointError that names the tensors with a NaN or an infinity."""
    broken = [name for name, value in state.items() if isinstance(value, Tensor) and not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f'{path} was not written, because {len(broken)} of its weights are not finite: '
                              f'{listed(broken)}')


def cause_of(error: BaseException) -> str:
    """Returns the operating system's words if its error caused this one, else the first line of ``error``."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return reason(cause) if cause is not None else str(error).splitlines()[0]

"""Reading a checkpoint file without running anything that is inside it."""

import argparse
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..resources import command_of
from .adapter_file import RECORD, content_of
from .fit import kind_of, kind_of_number
from .parts import choose, parts_of
from .seal import check_seal
from .stand_ins import HISTORY_BUFFER, OLD_MMENGINE, STAND_INS


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used. The message names the file and says what is wrong and what to do."""


# Weights do not compress: an archive that unpacks to more than this many times its size is an attack on the memory.
MAX_GROWTH = 20


def read_file(path: str | Path, old_mmengine: bool = False) -> object:
    """Reads the content of a ``.npz``, ``.safetensors`` or torch file (any other suffix).

    Torch files are loaded with ``weights_only=True``. Besides tensors and plain types only ``argparse.Namespace``
    is allowed, which official MAE files hold. ``.npz`` is read without pickle. Damage to a zip archive (torch,
    ``.npz``) is found by the checksums of its parts. ``.safetensors`` and torch's format of before 2020 have none, so
    only the SHA-256 of the file shows damage there.

    Args:
        path: A local file.
        old_mmengine: Whether to read checkpoints of stock MMEngine too. Their objects become stand-ins
            (:class:`.stand_ins.StandIn`).

    Returns:
        The content as it was saved, with its tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    if reader := READERS.get(path.suffix.lower()):
        return reader(path)
    return read_torch(path, (argparse.Namespace, *(STAND_INS if old_mmengine else ())))


def read_state_dict(path: str | Path, old_mmengine: bool = False, key: str | None = None) -> dict[str, Tensor]:
    """Reads the weights in a file as safely as :func:`read_file`.

    Args:
        path: A local file.
        old_mmengine: Whether to read checkpoints of stock MMEngine too.
        key: The part of the file to take, see :func:`weights_in`.

    Returns:
        dict: The innermost mapping of names to CPU tensors, with the names of the file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, not a checkpoint, holds no tensors, or several models and no ``key``.
    """
    return weights_in(read_file(path, old_mmengine), path, key)


def weights_in(content: object, path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Takes the weights out of the content of the file ``path``.

    Args:
        content: What :func:`read_file` returned.
        path: The file's name, for messages.
        key: The part to take, such as 'model_ema' or 'teacher', or the beginning of the names to take, such as 'net'.
            None takes the only model.

    Raises:
        CheckpointError: the content has no tensors, some that are not plain arrays of numbers, or several models, and
            ``key`` does not name one of them.
    """
    try:
        tensors = choose(parts_of(content), key)
    except ValueError as error:
        raise CheckpointError(f'{path} {error}') from error
    odd = [f'{k} ({kind_of(v)})' for k, v in tensors.items() if kind_of(v) != kind_of_number(v)]
    if odd:
        raise CheckpointError(f'{path} holds tensors that are not plain arrays of numbers: {", ".join(odd[:6])}')
    return tensors


def settings_in(content: object) -> dict:
    """Returns the config with which a checkpoint of ours was trained; empty for the content of other files."""
    meta = content.get('meta') if isinstance(content, dict) else None
    settings = meta.get('settings') if isinstance(meta, dict) else None
    return json.loads(settings) if isinstance(settings, str) else {}


def read_torch(path: Path, allowed: tuple) -> object:
    """Loads a torch file safely, with no other classes than ``allowed``.

    Raises:
        CheckpointError: the file cannot be loaded, for whatever reason.
    """
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        with only_allowed(allowed):
            return torch.load(path, map_location='cpu', weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and more
        if STAND_INS[0] not in allowed and is_old_mmengine(path):
            raise CheckpointError(
                f'{path} is a checkpoint of stock MMEngine: beside the weights it holds Python objects '
                '(HistoryBuffer), which are never loaded because they can run code. Take the weights out of it, once: '
                f'{command_of("convert_checkpoint", "--layout", "as-is", path, "NEW.pth")}') from error
        raise CheckpointError(f'{path} cannot be loaded as weights. It is truncated, not a checkpoint (a web page '
                              'saved in its place?), or holds Python objects besides tensors, which are never '
                              f'loaded because they can run code. torch says: {torch_reason(error)}') from error


def torch_reason(error: Exception) -> str:
    """Returns the line in which torch says what is wrong, without its advice to load the file unsafely."""
    found = re.search(r'(Unsupported|GLOBAL|Trying to|Can only) [^\n]*', str(error))
    return found[0] if found else next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def only_allowed(allowed: tuple) -> Iterator[None]:
    """Lets torch load these objects only, and none that other code has allowed in this process."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(allowed))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def is_old_mmengine(path: Path) -> bool:
    """Says whether a torch file holds the objects of a checkpoint of stock MMEngine, and no others."""
    try:
        with only_allowed((argparse.Namespace, )):
            objects = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it is no torch file at all
        return False
    return HISTORY_BUFFER in objects and objects <= set(OLD_MMENGINE)


def check_zip(path: Path) -> None:
    """Checks what ``torch.load`` does not: sizes, the seal of our own files, and the checksums in other files."""
    try:
        is_sealed = check_seal(path)
    except ValueError as error:
        raise CheckpointError(f'{path} is damaged: {error}. Copy it again, or take another checkpoint') from error
    with zipfile.ZipFile(path) as archive:
        check_growth(archive, path, 1)  # torch.save compresses nothing
        damaged = None if is_sealed else archive.testzip()
    if damaged:
        raise CheckpointError(f'{path} is damaged: the checksum of its part "{damaged}" is wrong; '
                              'download or copy it again')


def check_growth(archive: zipfile.ZipFile, path: Path, most: int) -> None:
    """Refuses an archive whose parts would be more than ``most`` times as large as the file."""
    declared = sum(part.file_size for part in archive.infolist())
    if declared > most * path.stat().st_size:
        raise CheckpointError(f'{path} is not a checkpoint: of {path.stat().st_size} bytes it would unpack {declared}')


def read_npz(path: Path) -> dict[str, Tensor]:
    """Reads a NumPy archive, as the JAX ViT checkpoints are published."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_growth(archive, path, MAX_GROWTH)
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except CheckpointError:
        raise
    except Exception as error:  # numpy and zipfile raise more than ten types for a damaged file
        raise CheckpointError(f'{path} cannot be read as a NumPy archive: {error}') from error


def read_safetensors(path: Path) -> dict:
    """Reads a safetensors file; of an adapter file of ours, the record too."""
    try:
        from safetensors import safe_open
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{path}: reading this format needs "pip install safetensors"') from error
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except Exception as error:
        raise CheckpointError(f'{path} cannot be read as safetensors: {error}') from error
    try:
        return content_of(state, metadata) if RECORD in metadata else state
    except ValueError as error:
        raise CheckpointError(f'{path} is refused: {error}') from error


READERS = {'.npz': read_npz, '.safetensors': read_safetensors}

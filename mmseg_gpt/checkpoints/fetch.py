"""Finding a pretrained file: where it lies, or from an address into torch.hub's cache, once for a machine.

A file enters the cache under its own name only after it was read whole, so what lies there is a checkpoint.
"""

import hashlib
import re
from collections.abc import Callable
from glob import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from filelock import FileLock
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ..files import file_sha256
from .read import CheckpointError, read_file

# torch.hub's convention: name-abcdef12.pth begins the SHA-256 of the file.
HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.')
TIMM = 'timm://'


def is_remote(checkpoint: str | Path) -> bool:
    """Whether ``checkpoint`` is an address and not a path."""
    return '://' in str(checkpoint)


def locate(checkpoint: str | Path) -> Path:
    """Where the file is on this machine, or will be when :func:`fetch` has got it; nothing is fetched.

    Args:
        checkpoint: A path, an http(s) address, or ``timm://NAME``.

    Raises:
        CheckpointError: another kind of address.
    """
    if not is_remote(checkpoint):
        return Path(checkpoint).expanduser()
    checkpoint, folder = str(checkpoint), Path(torch.hub.get_dir(), 'checkpoints')
    if re.fullmatch(rf'{TIMM}\w[\w.]*', checkpoint):
        return folder / f'timm-{checkpoint.removeprefix(TIMM)}.safetensors'
    name = name_in(checkpoint)
    if not checkpoint.startswith(('http://', 'https://')) or not name:
        raise CheckpointError(f'checkpoint {checkpoint}: give a path, an address that begins with http:// or https:// '
                              f'and ends in the name of a file, or {TIMM}NAME for a model of timm')
    # Many files are called model.safetensors: without a hash in it, a name says nothing.
    address = '' if HASH_IN_NAME.search(name) else hashlib.sha256(checkpoint.encode()).hexdigest()[:8] + '-'
    return folder / (address + name)


def name_in(address: str) -> str:
    """The name of the file that an address ends in, '' if there is none."""
    return Path(unquote(urlsplit(address).path)).name


def fetch(checkpoint: str | Path, sha256: str | None = None) -> Path:
    """Makes sure that the file is on this machine, and that it is the right one.

    Of several processes that share the cache one downloads, and the others wait; a lock of files and not
    ``mmengine.dist`` sees to it, because a barrier gives up during a long download and hangs after a failed one.

    Args:
        checkpoint: As for :func:`locate`.
        sha256: What ``sha256sum`` prints for the file, where that must be checked. Else only a hash in the name of
            a download is, once.

    Returns:
        Path: The local file.

    Raises:
        FileNotFoundError: there is no such local file.
        CheckpointError: it cannot be fetched, or it is not the file of this SHA-256.
    """
    if sha256 is not None and not re.fullmatch('[0-9a-fA-F]{64}', sha256):
        raise CheckpointError(f'sha256 of {checkpoint} must be the 64 hexadecimal digits that sha256sum prints, '
                              f'got {sha256!r}')
    path = locate(checkpoint)
    if is_remote(checkpoint):
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f'{path}.lock'):
                if not path.is_file():  # Another process may have fetched it meanwhile.
                    download(str(checkpoint), path, sha256)
    elif not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    if sha256 and (actual := file_sha256(path)) != sha256.lower():
        again = ' Delete it to fetch it again.' if is_remote(checkpoint) else ''
        raise CheckpointError(f'{path} is another file: its SHA-256 is {actual}, and sha256 asks for {sha256}.{again}')
    return path


def download(address: str, path: Path, sha256: str | None) -> None:
    """Fetches ``address`` to ``path``, which appears whole and checked, or not at all.

    Raises:
        CheckpointError: naming the address and where to put the file instead.
    """
    for left in path.parent.glob(f'partial-{escape(path.name)}*'):  # of a process that was killed
        left.unlink()
    partial = path.with_name(f'partial-{path.name}')
    get: Callable[[str, Path, str | None], None] = download_timm if address.startswith(TIMM) else download_url
    print_log(f'fetching {address} to {path}', logger='current')
    try:
        get(address, partial, sha256)
        read_file(partial)  # A download that breaks off raises nothing by itself.
        partial.replace(path)
    except Exception as error:  # urllib, ssl, http.client and timm have one hierarchy each
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f'{address} cannot be fetched, and nothing of it was kept: {type(error).__name__}: {error}\nTo do without '
            f'a network, put the file at {path}, or set checkpoint to where you have it.') from error


def download_url(address: str, path: Path, sha256: str | None) -> None:
    """Downloads an http(s) address and checks its hash: ``sha256``, or the one in its name."""
    in_name = HASH_IN_NAME.search(name_in(address))
    expected = sha256.lower() if sha256 else in_name and in_name[1]
    torch.hub.download_url_to_file(address, str(path), expected, progress=is_main_process())


def download_timm(address: str, path: Path, sha256: str | None) -> None:
    """Lets timm load the pretrained weights of a model, and keeps them as safetensors."""
    try:
        import timm
        from safetensors.torch import save_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{TIMM} needs "pip install timm" ({error})') from error
    model = timm.create_model(address.removeprefix(TIMM), pretrained=True, num_classes=0)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)

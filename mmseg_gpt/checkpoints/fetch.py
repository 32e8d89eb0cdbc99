"""Finding a pretrained file: at a local path, or at an address, from which it is fetched once into torch.hub's cache.

A file gets its name in the cache only after all of it was read, so the cache holds nothing but checkpoints.
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
from ..wording import reason
from .hub import HubError, fetch_hub, is_hub_name
from .read import CheckpointError, read_file

# torch.hub's convention: name-abcdef12.pth begins the SHA-256 of the file.
HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.')
TIMM = 'timm://'


def is_remote(checkpoint: str | Path) -> bool:
    """Says whether ``checkpoint`` is an address and not a path."""
    return '://' in str(checkpoint)


def locate(checkpoint: str | Path) -> Path:
    """Returns the path at which the file is on this machine, or at which :func:`fetch` will put it. Fetches nothing.

    Args:
        checkpoint: A path, an http(s) address, or ``timm://NAME``.

    Raises:
        CheckpointError: ``checkpoint`` is another kind of address.
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
    # Many files are called model.safetensors: a name identifies a file only with a hash in it.
    address = '' if HASH_IN_NAME.search(name) else hashlib.sha256(checkpoint.encode()).hexdigest()[:8] + '-'
    return folder / (address + name)


def name_in(address: str) -> str:
    """Returns the file name at the end of an address, or ''."""
    return Path(unquote(urlsplit(address).path)).name


def fetch(checkpoint: str | Path, sha256: str | None = None) -> Path:
    """Makes sure that the file is on this machine and that it is the right one.

    If several processes share the cache, one downloads and the others wait. A file lock sees to that, not
    ``mmengine.dist``, because a barrier gives up during a long download and hangs after a failed one.

    Args:
        checkpoint: A path, an http(s) address, ``timm://NAME``, or a model of the hub, ``hf://OWNER/NAME``.
        sha256: The SHA-256 that the file must have, as ``sha256sum`` prints it. Without it only a download is
            checked, once, against the hash in its name if it has one.

    Returns:
        Path: The local file.

    Raises:
        FileNotFoundError: there is no such local file.
        CheckpointError: the file cannot be fetched, or has another SHA-256.
    """
    if sha256 is not None and not re.fullmatch('[0-9a-fA-F]{64}', sha256):
        raise CheckpointError(f'sha256 of {checkpoint} must be the 64 hexadecimal digits that sha256sum prints, '
                              f'got {sha256!r}')
    path = from_hub(str(checkpoint)) if is_hub_name(checkpoint) else locate(checkpoint)
    if is_remote(checkpoint):
        if not path.is_file():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f'{path}.lock'):
                    if not path.is_file():  # Another process may have fetched it meanwhile.
                        download(str(checkpoint), path, sha256)
            except OSError as error:
                raise CheckpointError(f'{checkpoint} cannot be kept in {path.parent}: {reason(error)}. The variable '
                                      'TORCH_HOME names another folder') from error
    elif not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    if sha256 and (actual := file_sha256(path)) != sha256.lower():
        again = ' Delete it to fetch it again.' if is_remote(checkpoint) else ''
        raise CheckpointError(f'{path} is another file: its SHA-256 is {actual}, and sha256 asks for {sha256}.{again}')
    return path


def from_hub(checkpoint: str) -> Path:
    """Returns the adapter file of a model of the hub.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    try:
        return fetch_hub(checkpoint)
    except HubError as error:
        raise CheckpointError(str(error)) from error


def download(address: str, path: Path, sha256: str | None) -> None:
    """Fetches ``address`` to ``path``, which appears whole and checked, or not at all.

    Raises:
        CheckpointError: the fetch failed; the message names the address and where to put the file instead.
    """
    for left in path.parent.glob(f'partial-{escape(path.name)}*'):  # left by a process that was killed
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
    """Downloads an http(s) address and checks the hash of the file: ``sha256``, or the one in its name."""
    in_name = HASH_IN_NAME.search(name_in(address))
    expected = sha256.lower() if sha256 else in_name and in_name[1]
    torch.hub.download_url_to_file(address, str(path), expected, progress=is_main_process())


def download_timm(address: str, path: Path, sha256: str | None) -> None:
    """Lets timm load the pretrained weights of a model, and saves them as safetensors."""
    try:
        import timm
        from safetensors.torch import save_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{TIMM} needs "pip install timm" ({error})') from error
    model = timm.create_model(address.removeprefix(TIMM), pretrained=True, num_classes=0)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)

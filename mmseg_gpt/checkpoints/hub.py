"""Models of the Hugging Face Hub by name, ``hf://OWNER/NAME``: fetched once into its cache, and then used from there.

Only two files are ever asked for, by names that are written here: nothing that stands in a repository decides where
something is written. What is in the cache is used as it is, without a network; ``mmseg-gpt pull`` fetches what is new.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

HF = 'hf://'
ADAPTER, CARD = 'adapter.safetensors', 'README.md'
MOST_BYTES = 8 << 30  # of a file to be fetched: more than any ViT that a model here can have
OWN_PART = r'[A-Za-z0-9](?:[\w-]|\.(?!\.)){0,95}'
NAME = re.compile(rf'(?:{HF})?(?P<repo>(?:{OWN_PART}/)?{OWN_PART})(?:@(?P<revision>[\w][\w./-]{{0,127}}))?')
TOKEN = re.compile(r'\bhf_\w{8,}')


class HubError(RuntimeError):
    """Something with the hub went wrong. The message is one sentence that names the model and says what to do."""


class HubName(NamedTuple):
    """Name of a model on the hub.

    Attributes:
        repo: Owner and name; pushing takes a name alone, of the user's own account.
        revision: Branch, tag or commit; None for the main branch.
    """
    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f'{HF}{self.repo}' + (f'@{self.revision}' if self.revision else '')


def is_hub_name(text: object) -> bool:
    """Says whether a checkpoint or a config is named as one of the hub."""
    return str(text).startswith(HF)


def read_name(text: str, revision: str | None = None) -> HubName:
    """Reads ``[hf://]OWNER/NAME[@REVISION]``, or NAME alone.

    Args:
        text: What was typed.
        revision: A revision that was given apart from it.

    Raises:
        HubError: it is no such name, or it names two revisions.
    """
    found = NAME.fullmatch(text)
    if found is None:
        raise HubError(f'{text} is no name of a model on the hub: write {HF}OWNER/NAME, or {HF}OWNER/NAME@REVISION')
    if revision and found['revision'] not in (None, revision):
        raise HubError(f'{text} names one revision, and --revision {revision} another')
    if revision and not NAME.fullmatch(f'a@{revision}'):
        raise HubError(f'{revision} is no revision: give a branch, a tag or a commit')
    return HubName(found['repo'], found['revision'] or revision)


def cached(name: HubName) -> Path | None:
    """Returns the adapter file of a model that was fetched before; None if it was not. Asks no server."""
    hub = library(str(name))
    found = hub.try_to_load_from_cache(name.repo, ADAPTER, revision=name.revision)
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def fetch_hub(text: str) -> Path:
    """Returns the adapter file of a model, from the cache if it is there, else from the hub.

    Args:
        text: ``hf://OWNER/NAME``, and a revision after ``@`` if it is not the main branch.

    Raises:
        HubError: there is no such model, it may not be read, or the hub cannot be reached.
    """
    name = read_name(text)
    return cached(name) or download(name)


def download(name: HubName, again: bool = False) -> Path:
    """Fetches the newest adapter file of a model, and returns it.

    Args:
        name: The model.
        again: Whether to fetch what is there already, because it is damaged.

    Raises:
        HubError: there is no such model, it may not be read, the file is too large, or the hub cannot be reached.
    """
    hub = library(str(name))
    with in_words(name):
        size = hub.get_hf_file_metadata(hub.hf_hub_url(
            name.repo, ADAPTER, revision=name.revision, endpoint=hub.constants.ENDPOINT)).size
        if size is not None and size > MOST_BYTES:
            raise HubError(f'{name} has a file of {size / 2**30:,.1f} GiB, and at most {MOST_BYTES >> 30} are fetched')
        return Path(hub.hf_hub_download(name.repo, ADAPTER, revision=name.revision, force_download=again,
                                        endpoint=hub.constants.ENDPOINT))


def library(wanted_by: str) -> ModuleType:
    """Imports huggingface_hub.

    Raises:
        HubError: it is not there.
    """
    try:
        import huggingface_hub.constants  # by itself the library imports nothing
    except ModuleNotFoundError as error:
        raise HubError(f'{wanted_by}: the hub needs pip install "mmseg_gpt[hub]" ({error})') from error
    return huggingface_hub


@contextmanager
def in_words(name: HubName) -> Iterator[None]:
    """Turns an error of the hub's library into one sentence, without tokens.

    Raises:
        HubError: in its place.
    """
    from huggingface_hub import constants
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # of httpx or requests, of sockets, and many of the library's own
        raise HubError(sentence(error, name, constants.ENDPOINT)) from None


def sentence(error: Exception, name: HubName, endpoint: str) -> str:
    """Says what an error of the hub's library means, and what to do.

    Args:
        error: The error.
        name: The model.
        endpoint: The address of the hub.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    log_in = 'log in with "hf auth login" or set HF_TOKEN'
    if 'GatedRepoError' in kinds:
        return f'{name} is there, and its owner has to let you in: ask on {endpoint}/{name.repo}, then {log_in}'
    if 'RevisionNotFoundError' in kinds:
        return f'{name}: the model is there, and has no revision {name.revision or "main"}'
    if 'EntryNotFoundError' in kinds and status == 404:
        return f'{name} has no {ADAPTER}: it was not pushed by mmseg-gpt'
    if status == 401 and 'RepositoryNotFoundError' not in kinds:
        return f'{name}: {endpoint} does not know your token; {log_in}'
    if 'RepositoryNotFoundError' in kinds or status == 404:
        return f'{name} is not on {endpoint}, or it is private and not yours: check the name, and {log_in}'
    if status == 403:
        return f'{name}: your token may not do this; take one that may write to {name.repo}'
    if status == 412 or status == 409:
        return f'{name} was changed by somebody else meanwhile: push again'
    if 'OfflineModeIsEnabled' in kinds:
        return (f'{name}: HF_HUB_OFFLINE forbids to ask the hub; only what was pulled before can be used '
                f'(mmseg-gpt pull {str(name).removeprefix(HF)})')
    if status is not None:
        return f'{name}: {endpoint} answered with the error {status}: {first_line(error)}'
    if kinds & {'ConnectError', 'ConnectionError', 'TimeoutException', 'Timeout', 'LocalEntryNotFoundError',
                'ConnectTimeout', 'ReadTimeout', 'RemoteProtocolError', 'ReadError', 'NetworkError'}:
        return f'{name}: {endpoint} cannot be reached, or broke off; nothing unfinished was kept ({first_line(error)})'
    return f'{name}: {first_line(error)}'


def first_line(error: Exception) -> str:
    """Returns the first line of a message without tokens, or the name of the error's class."""
    return TOKEN.sub('hf_...', next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))

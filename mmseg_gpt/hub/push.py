"""Uploads what :mod:`.make` has written: to a private repository, unless the user says otherwise."""

import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ..checkpoints.hub import ADAPTER, CARD, HubError, HubName, in_words, library
from .card import KEPT

FRONT_MATTER = re.compile(r'\A---\n.*?\n---\n', re.DOTALL)
OURS = {ADAPTER, CARD, '.gitattributes'}


class Target(NamedTuple):
    """A repository that may be pushed to.

    Attributes:
        name: Owner and name, and the branch.
        head: The newest commit of the branch; None if there is none yet.
        is_new: Whether the repository has to be made.
        keeps_card: Whether its card was written by hand, and stays.
    """
    name: HubName
    head: str | None
    is_new: bool
    keeps_card: bool


class Pushed(NamedTuple):
    """What was uploaded.

    Attributes:
        name: Owner and name, and the branch.
        commit: The commit.
        address: The repository's page.
        keeps_card: Whether the card that was there has stayed.
    """
    name: HubName
    commit: str
    address: str
    keeps_card: bool


def find_target(name: HubName, public: bool = False) -> Target:
    """Looks at the repository that is to be pushed to, and changes nothing.

    Args:
        name: Owner and name, or a name in the user's own account; and a branch.
        public: Whether everybody may see it.

    Raises:
        HubError: nobody is logged in, the repository is of something else, or its visibility is not the one asked for;
            or the hub says no or cannot be reached.
    """
    hub = library(str(name))
    if hub.get_token() is None:
        raise HubError(f'{name}: nobody is logged in; use "hf auth login" or set HF_TOKEN')
    api = hub.HfApi()
    with in_words(name):
        if '/' not in name.repo:
            name = name._replace(repo=f'{api.whoami()["name"]}/{name.repo}')
        if not api.repo_exists(name.repo):
            return Target(name, None, True, False)
        info = api.repo_info(name.repo)
        if bool(info.private) == public:
            raise HubError(f'{name} is {"private" if info.private else "public"}: ' + (
                'make it public on its page first, or push without --public' if public else
                'everybody would see this model; give --public if that is meant'))
        files = {file.rfilename for file in info.siblings or ()}
        if ADAPTER not in files and files - OURS:
            raise HubError(f'{name} holds something else ({", ".join(sorted(files - OURS)[:3])}); choose another name')
        head = branch_head(api, name) if name.revision else info.sha
        return Target(name, head, False, CARD in files and keeps_card(hub, name, head))


def branch_head(api: object, name: HubName) -> str | None:
    """Returns the newest commit of a branch; None if there is no such branch."""
    branches = {branch.name: branch.target_commit for branch in api.list_repo_refs(name.repo).branches}
    return branches.get(name.revision)


def keeps_card(hub: ModuleType, name: HubName, head: str | None) -> bool:
    """Says whether the card of a repository is one that somebody has written or changed."""
    text = Path(hub.hf_hub_download(name.repo, CARD, revision=head, endpoint=hub.constants.ENDPOINT)).read_text(
        encoding='utf-8', errors='replace')
    return KEPT not in text and bool(FRONT_MATTER.sub('', text).strip())


def push(target: Target, folder: Path, public: bool = False, message: str | None = None) -> Pushed:
    """Uploads adapter file and card in one commit, so that no reader ever gets the one without the other.

    Args:
        target: From :func:`find_target`.
        folder: Where :func:`mmseg_gpt.hub.publish` has written both.
        public: Whether a new repository may be seen by everybody.
        message: What the commit says.

    Raises:
        HubError: the hub says no, the repository has changed meanwhile, or the hub cannot be reached. What was there
            is as it was.
    """
    name = target.name
    hub = library(str(name))
    api = hub.HfApi()
    files = [ADAPTER] if target.keeps_card else [ADAPTER, CARD]
    with in_words(name):
        if target.is_new:
            api.create_repo(name.repo, private=not public)
        if name.revision and target.head is None:
            api.create_branch(name.repo, branch=name.revision, exist_ok=True)
        commit = api.create_commit(
            name.repo, [hub.CommitOperationAdd(file, str(folder / file)) for file in files],
            commit_message=message or 'Push a model of mmseg_gpt', revision=name.revision, parent_commit=target.head)
        return Pushed(name, commit.oid, f'{hub.constants.ENDPOINT}/{name.repo}', target.keeps_card)

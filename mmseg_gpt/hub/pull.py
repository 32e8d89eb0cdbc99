"""Fetches a model of the hub, with the ViT it needs, and checks all of it, so that it can be used without a network."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..apis.task import load_task
from ..checkpoints import CheckpointError, fetch, is_remote, read_file
from ..checkpoints.hub import HubName, download
from ..engine.shared_config import shared_config


@dataclass(frozen=True)
class Pulled:
    """A model that is on this machine.

    Attributes:
        name: Its name on the hub.
        commit: The commit that it is.
        file: The adapter file in the hub's cache.
        record: The file's record.
        missing: What to do about the ViT, where it is not there; else ''.
    """
    name: HubName
    commit: str
    file: Path
    record: dict
    missing: str = ''


def pull(name: HubName, vit: str | Path | None = None, fetch_vit: bool = False) -> Pulled:
    """Fetches the newest version of a model, checks it, and fetches its ViT.

    Args:
        name: The model.
        vit: A file of the ViT; by default it is in ``pretrained/``, or fetched if it is a released one.
        fetch_vit: Whether to fetch the ViT from whatever address the model's author gives.

    Raises:
        HubError: the model cannot be fetched.
        CheckpointError: the file is damaged or refused, or the ViT is another one.
        ValueError: the config in the file is refused.
    """
    file = download(name)
    try:
        content = read_file(file)
    except CheckpointError:  # what is in the cache may be damaged, or what was fetched
        file = download(name, again=True)
        content = read_file(file)
    cfg = shared_config(file)
    record = content['meta']['record']
    missing = find_vit(cfg, record['vit'], vit, fetch_vit) if record['vit'] else ''
    if not missing:
        load_task(str(name), cfg, file, frozen=False)
    return Pulled(name, file.parent.name, file, record, missing)


def find_vit(cfg: Config, needed: dict, vit: str | Path | None, fetch_vit: bool) -> str:
    """Makes a config name a ViT that is there, fetched if need be; returns what to do if that cannot be.

    Raises:
        CheckpointError: it cannot be fetched, or is another file.
    """
    init_cfg = cfg.model.backbone.init_cfg
    if vit:
        init_cfg.checkpoint = str(vit)
    elif fetch_vit and needed['address']:
        fetch(needed['address'], needed['sha256'] if '://' in needed['address'] and not needed['address'].startswith(
            'timm://') else None)
        init_cfg.checkpoint = needed['address']
    elif is_remote(init_cfg.checkpoint):
        fetch(init_cfg.checkpoint)
    elif not Path(init_cfg.checkpoint).is_file():
        source = f'{needed["address"]}, whence --fetch-vit fetches it if you trust that address' if needed[
            'address'] else 'no address that was said'
        return (f'{needed["file"]} (SHA-256 {needed["sha256"]}), from {source}. Put it at {init_cfg.checkpoint}, or '
                'name it by --vit FILE')
    return ''

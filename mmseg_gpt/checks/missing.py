"""Checks for what is not there: datasets and pretrained files, with where to get them and where to put them."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..checkpoints import CheckpointError, address_of, is_remote, locate
from ..settings import type_name, unwrapped_datasets
from .published import PUBLISHED, Published

OWN_DATASET = '        set:        data_root and data_prefix of the data loaders in the config'
IN_CONFIG = '--cfg-options model.backbone.init_cfg.checkpoint=FILE_OR_ADDRESS'


def missing_files(dataset: ConfigDict) -> list[str]:
    """Lists the files and folders that a dataset needs and that are not there, or empty.

    It knows the ``data_root`` and ``data_prefix`` of mmsegmentation and mmpretrain, and the layouts in
    :mod:`.published`, whose datasets have no ``data_prefix`` in their configs.

    Args:
        dataset: The config of a dataset, without wrappers.

    Returns:
        The files, and the folders as they are written in the config.
    """
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    folders = [prefix] if isinstance(prefix, str) else prefix.values()
    layouts = [tuple(folder for folder in folders if folder)]
    if (known := published(dataset)) and known.layouts:
        layouts = known.layouts.get(dataset.get('split'), known.layouts[None])
    lacks = [[name for name in layout if '://' not in root + name and not is_there(Path(root, name))]
             for layout in layouts]
    return min(lacks, key=len)  # the layout with the fewest files missing


def is_there(path: Path) -> bool:
    """Returns whether a path is a file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def published(dataset: ConfigDict) -> Published | None:
    """Returns what :mod:`.published` says of a dataset config, if anything."""
    return PUBLISHED.get(type_name(dataset))


def missing_datasets(datasets: list[ConfigDict]) -> list[str]:
    """Says which files of datasets are missing or empty, once for each kind of dataset."""
    absent: dict[tuple, dict[str, list[str]]] = {}
    for dataset in (source for each in datasets for source in unwrapped_datasets(each)):
        if files := missing_files(dataset):
            entry = published(dataset) or Published(f'The dataset ({type_name(dataset)})', OWN_DATASET)
            said = f'{entry.name}: {"not there, or empty:" if entry.layouts else "no files in"}'
            absent.setdefault((said, entry.how), {}).setdefault(dataset.get('data_root') or '', []).extend(files)
    return [told(said, how, roots) for (said, how), roots in absent.items()]


def told(said: str, how: str, roots: dict[str, list[str]]) -> str:
    """Writes the message for datasets of one kind.

    Args:
        said: Which dataset it is, and what is the matter.
        how: How to get it.
        roots: The missing files, by the folder they were looked for in; only the first folder is told in full.
    """
    (root, files), *others = roots.items()
    likewise = f'\n        likewise:   {", ".join(other for other, _ in others)}' if others else ''
    return (f'  * {said} {", ".join(dict.fromkeys(files))}\n'
            f'        looked in:  {Path(root).resolve()}\n{how.replace("ROOT", root)}{likewise}')


def missing_checkpoint(init_cfg: ConfigDict | None, remedy: str = IN_CONFIG) -> list[str]:
    """Says that the pretrained ViT named by ``init_cfg`` is not there.

    Args:
        init_cfg: It names the file or address as ``checkpoint``.
        remedy: The option that names another file.
    """
    path = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    if path is None:
        return []
    try:
        if locate(path).is_file() or is_remote(path):  # what is remote is fetched when the model is filled
            return []
    except CheckpointError as error:
        return [f'  * The pretrained ViT: {error}']
    return [f'  * The pretrained ViT, {Path(path).name}\n        looked in:  {Path(path).resolve().parent}\n'
            f'        get:        {address_of(path) or "(not a published file: see the config)"}\n'
            f'        put:        {path}\n'
            f'        or:         {remedy}']


def missing_weights(cfg: Config) -> list[str]:
    """Says that the checkpoint of ``load_from`` is not there."""
    path = cfg.get('load_from')
    if not path or '://' in path or Path(path).is_file():
        return []
    return [f'load_from: there is no checkpoint {path}']

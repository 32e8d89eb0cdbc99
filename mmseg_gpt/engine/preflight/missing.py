"""What is not there: datasets and pretrained files, with where to get them and where to put them."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ...checkpoints import CheckpointError, is_remote, locate, source_of

ADE20K = """\
        get:        http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip  (923 MB)
        put:        unzip it into data/ade, which gives
                    data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg
                    data/ade/ADEChallengeData2016/annotations/{training,validation}/*.png
        or:         keep it elsewhere and link it:  ln -s /your/ADEChallengeData2016 data/ade/ADEChallengeData2016"""
OWN_DATASET = '        set:        data_root and data_prefix of the data loaders in the config'
DATASETS = {'ADE20KDataset': ('ADE20K', ADE20K)}


def sources(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """The configs of the datasets inside wrappers; a plain one is its own."""
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if not all(isinstance(each, dict) for each in inner):
        yield dataset
        return
    for each in inner:
        yield from sources(each)


def missing_folders(dataset: ConfigDict) -> list[str]:
    """The folders of an unwrapped dataset config that are not there or empty, as they are written in it.

    Knows the ``data_root`` and ``data_prefix`` of mmsegmentation and mmpretrain.
    """
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    folders = [prefix] if isinstance(prefix, str) else prefix.values()
    return [f for f in folders if f and '://' not in root + f
            and not (Path(root, f).is_dir() and any(Path(root, f).iterdir()))]


def missing_datasets(datasets: list[ConfigDict]) -> list[str]:
    """Says which folders of dataset configs are not there or empty, once for each root."""
    absent: dict[tuple[str, str], list[str]] = {}
    for dataset in (source for each in datasets for source in sources(each)):
        if folders := missing_folders(dataset):
            absent.setdefault((dataset.type, dataset.get('data_root') or ''), []).extend(folders)
    said = []
    for (kind, root), folders in absent.items():
        name, how = DATASETS.get(kind, (f'The dataset ({kind})', OWN_DATASET))
        said.append(f'  * {name}: no files in {", ".join(dict.fromkeys(folders))}\n'
                    f'        looked in:  {Path(root).resolve()}\n{how}')
    return said


def missing_checkpoint(init_cfg: ConfigDict | None) -> list[str]:
    """Says that the pretrained ViT named by ``init_cfg`` is not there."""
    path = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    if path is None:
        return []
    try:
        if locate(path).is_file() or is_remote(path):  # what is remote is fetched when the model is filled
            return []
    except CheckpointError as error:
        return [f'  * The pretrained ViT: {error}']
    return [f'  * The pretrained ViT, {Path(path).name}\n        looked in:  {Path(path).resolve().parent}\n'
            f'        get:        {source_of(path) or "(not a published file: see the config)"}\n'
            f'        put:        pretrained/{Path(path).name}\n'
            '        or:         --cfg-options model.backbone.init_cfg.checkpoint=FILE_OR_ADDRESS']


def missing_weights(cfg: Config) -> list[str]:
    """Says that the checkpoint of ``load_from`` is not there."""
    path = cfg.get('load_from')
    if not path or '://' in path or Path(path).is_file():
        return []
    return [f'load_from: there is no checkpoint {path}']

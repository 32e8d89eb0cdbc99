"""Checks before a run starts, so that what is missing is said in one screen and not after a traceback."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from torch import nn

from ..checkpoints import source_of
from ..checkpoints.adapters import unwrap

ADE20K = """\
        get:        http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip  (923 MB)
        put:        unzip it into data/ade, which gives
                    data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg
                    data/ade/ADEChallengeData2016/annotations/{training,validation}/*.png
        or:         keep it elsewhere and link it:  ln -s /your/ADEChallengeData2016 data/ade/ADEChallengeData2016"""
OWN_DATASET = '        set:        data_root and data_prefix of the data loaders in the config'
DATASETS = {'ADE20KDataset': ('ADE20K', ADE20K)}


def check_files(cfg: Config, loaders: tuple[str, ...], pretrained: bool) -> None:
    """Stops where a dataset or the pretrained ViT is missing.

    Args:
        cfg: The whole config.
        loaders: Which data loaders will be used, such as ``('train_dataloader', 'val_dataloader')``.
        pretrained: Whether the backbone will be filled from ``init_cfg``.

    Raises:
        SystemExit: something is missing; the message says what, where it was looked for, where to get
            it and where to put it.
    """
    missing = missing_datasets([cfg[loader].dataset for loader in loaders if cfg.get(loader)])
    if pretrained:
        missing += missing_checkpoint(cfg.model.get('backbone', {}).get('init_cfg'))
    if missing:
        said = 'Nothing was started, because this is missing:\n\n' + '\n\n'.join(missing)
        said += f'\n\nPaths are relative to the current folder, {Path.cwd()}.'
        raise SystemExit(said if os.environ.get('RANK', '0') == '0' else 1)  # of many processes, one says it


def missing_datasets(datasets: list[ConfigDict]) -> list[str]:
    """Says which folders of dataset configs are not there or empty, once for each root.

    Knows the ``data_root`` and ``data_prefix`` of mmsegmentation and mmpretrain; wrapped datasets pass.
    """
    absent: dict[tuple[str, str], list[str]] = {}
    for dataset in datasets:
        root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
        for folder in filter(None, [prefix] if isinstance(prefix, str) else prefix.values()):
            path = Path(root, folder)
            if not path.is_dir() or not any(path.iterdir()):
                absent.setdefault((dataset.type, root), []).append(folder)
    said = []
    for (kind, root), folders in absent.items():
        name, how = DATASETS.get(kind, (f'The dataset ({kind})', OWN_DATASET))
        said.append(f'  * {name}: no files in {", ".join(folders)}\n        looked in:  {Path(root).resolve()}\n{how}')
    return said


def missing_checkpoint(init_cfg: ConfigDict | None) -> list[str]:
    """Says that the pretrained ViT named by ``init_cfg`` is not there."""
    path = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    if path is None or Path(path).is_file():
        return []
    source = path if '://' in str(path) else source_of(path) or '(not a published file: see the config)'
    path = path if '://' not in str(path) else f'pretrained/{Path(path).name}'
    return [f'  * The pretrained ViT, {Path(path).name}\n        looked in:  {Path(path).resolve().parent}\n'
            f'        get:        {source}\n        put:        {path}\n'
            '        or:         --cfg-options model.backbone.init_cfg.checkpoint=/your/file']


def check_paramwise(cfg: Config, model: nn.Module) -> None:
    """Stops where a key of ``paramwise_cfg.custom_keys`` matches no trained parameter.

    MMEngine would silently scale nothing.

    Raises:
        SystemExit: naming the key.
    """
    keys = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
    trained = [name for name, p in unwrap(model).named_parameters() if p.requires_grad]
    for key in keys:
        if not any(key in name for name in trained):
            raise SystemExit(f'optim_wrapper.paramwise_cfg.custom_keys: "{key}" is in no trained parameter\'s name; '
                             f'their names begin with {sorted({n.split(".")[0] for n in trained})}')

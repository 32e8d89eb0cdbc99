"""The config inside an adapter file: checked, completed with where things are on this machine, and never run."""

import importlib
import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..adapters import frozen_state
from ..checkpoints import CheckpointError, address_of, differences, fetch, locate, read_file
from ..checkpoints.adapter_file import SCOPES, SUFFIX
from ..checkpoints.hub import is_hub_name
from ..checkpoints.plain_config import restored

# Parameters that a ViT in somebody else's config may have: twice those of the largest that has a name here and no
# access of its own to ask for. A file of weights is no larger for it, so only this keeps memory from being filled.
MOST_PARAMETERS = 2_000_000_000


def is_shared(config: str | Path) -> bool:
    """Says whether a config is an adapter file, or a model of the hub."""
    return is_hub_name(config) or Path(config).suffix == SUFFIX


def shared_config(file: str | Path) -> Config:
    """Returns the config of an adapter file, for predicting, exporting and testing.

    The ViT is looked for in ``pretrained/`` under the name of its file, and else at its address, if that is where it
    was released, or if it was fetched from there before. Whether it is the right one is checked when it is loaded.

    Args:
        file: An adapter file, or ``hf://OWNER/NAME``.

    Raises:
        ValueError: it is no adapter file, or its config is refused; the message says why.
        ImportError: a module that its task needs is not installed.
    """
    try:
        content = read_file(fetch(str(file)))
    except (CheckpointError, FileNotFoundError) as error:
        raise ValueError(str(error)) from error
    record = content.get('meta', {}).get('record') if isinstance(content.get('meta', {}), dict) else None
    if record is None:
        raise ValueError(f'{file} holds weights only, and no config: it was not made by mmseg-gpt push')
    scope = SCOPES[record['task']]
    for module in own_modules(scope):
        importlib.import_module(module)
    cfg = config_of(record, scope)
    check_size(cfg, content['state_dict'], file)
    return cfg


def own_modules(scope: str | None) -> list[str]:
    """Returns the modules of this package that register what configs of a default scope name."""
    return [*dict(mmseg=['mmseg_gpt', 'mmseg_gpt.segmentation'],
                  mmpretrain=['mmseg_gpt', 'mmseg_gpt.classification.datasets']).get(scope, [])]


def config_of(record: dict, scope: str) -> Config:
    """Returns the config of a record that was checked."""
    settings = restored(record['config'])
    pipeline = settings.pop('test_pipeline')
    segments = scope == 'mmseg'
    meta = {name: record[name] for name in ('classes', 'palette') if record[name]}
    own = dict(type='BaseSegDataset', reduce_zero_label=record['reduce_zero_label'], data_prefix=dict(
        img_path='images', seg_map_path='masks')) if segments else dict(type='CustomDataset', data_prefix='')
    if record['vit']:
        settings['model']['backbone']['init_cfg'] = dict(
            type='PretrainedViT', checkpoint=place_of_vit(record['vit']), key=record['vit']['key'])
    return Config(dict(
        settings, default_scope=scope, custom_imports=dict(imports=own_modules(scope)),
        test_dataloader=dict(batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False),
                             dataset=dict(own, data_root='', metainfo=meta, pipeline=pipeline)),
        test_evaluator=dict(type='PerClassIoUMetric', iou_metrics=['mIoU']) if segments else dict(
            type='Accuracy', topk=(1, )),
        test_cfg=dict(type='TestLoop')))


def place_of_vit(vit: dict) -> str:
    """Returns the file of a ViT on this machine, or the address from which it may be fetched.

    An address that stands in a file of somebody else is not asked, unless it is that of a released file or of a model
    of timm: the user decides, by ``mmseg-gpt pull --fetch-vit``.
    """
    path, address = Path('pretrained', vit['file']), vit['address']
    if not path.is_file() and address and (is_released(vit) or locate(address).is_file()):
        return address
    return str(path)


def is_released(vit: dict) -> bool:
    """Says whether the address of a ViT is one that this package knows."""
    return vit['address'].startswith('timm://') or vit['address'] == address_of(vit['file'])


def check_size(cfg: Config, state: dict[str, torch.Tensor], file: str | Path) -> None:
    """Builds the model without memory, and refuses one whose trained weights are not those in the file.

    Raises:
        ValueError: they are others, or the ViT would be very large, or no model can be built.
    """
    model = outline(cfg, file)
    frozen = frozen_state(model)
    wanted = {name: value for name, value in model.state_dict().items() if name not in frozen}
    if problems := differences(wanted, state):
        raise ValueError('\n'.join([f'{file} is refused: its weights are not those of its config', *problems]))
    if (count := sum(value.numel() for value in frozen.values())) > MOST_PARAMETERS:
        raise ValueError(f'{file} is refused: its ViT would have {count:,} parameters, and at most '
                         f'{MOST_PARAMETERS:,} are allowed')


def outline(cfg: Config, file: str | Path) -> nn.Module:
    """Returns the model of a config with shapes and without numbers.

    Raises:
        ValueError: it cannot be built.
    """
    settings = cfg.model.copy()
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        with (torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope),
              warnings.catch_warnings()):
            warnings.simplefilter('ignore')  # it is only looked at
            return MODELS.build(settings)
    except Exception as error:  # whatever a class makes of settings that are not its own
        raise ValueError(f'{file} is refused: no model can be built of its config: {error}') from error

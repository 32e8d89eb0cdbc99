"""The growth of memory with the number of tasks, in a pool and in separate models, measured with random weights."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ...adapters import VIT_SETTINGS, frozen_source, frozen_state
from ...apis.memory import storage_bytes
from ...apis.pool import AdapterPool
from ...apis.task import build_model, frozen_vit
from ...checkpoints import load_vit
from ...checkpoints.write import write_checkpoint
from ...models import GatedPromptViT

# The settings of a backbone that decide the names and shapes of its ViT.
SHAPE = tuple(name for name in VIT_SETTINGS if name != 'img_size')
VIT, ADAPTER = 'vit.pth', 'adapter.pth'


class Growth(NamedTuple):
    """Bytes after a task has been added.

    Attributes:
        task: Name of the task.
        added: Bytes that it added to the pool.
        pool: Bytes of the whole pool.
        separate: Bytes of all tasks so far as separate models.
    """
    task: str
    added: int
    pool: int
    separate: int


def measure_growth(configs: dict[str, Config], folder: Path, dtype: torch.dtype = torch.float32) -> Iterator[Growth]:
    """Adds the tasks of configs to a pool one by one, through files as a user does, and counts bytes after each.

    Args:
        configs: Configs by the name of the task; all must use the same ViT.
        folder: An empty folder, for a random pretrained ViT and adapters for it.
        dtype: Type of the ViT, see :class:`AdapterPool`.
    """
    pool, separate = AdapterPool('cpu', dtype), 0
    for name, config in configs.items():
        cfg = copy.deepcopy(config)
        cfg.model.backbone.init_cfg = dict(type='PretrainedViT', checkpoint=str(folder / VIT))
        write_random(cfg, name, folder)
        before = pool.nbytes
        pool.add(name, cfg, folder / ADAPTER)
        separate += storage_bytes([pool.tasks[name].model])
        yield Growth(name, pool.nbytes - before, pool.nbytes, separate)


def write_random(cfg: Config, name: str, folder: Path) -> None:
    """Writes an untrained adapter-only checkpoint of a config, and the random ViT if it is not there yet."""
    if not (folder / VIT).exists():
        shape = {key: cfg.model.backbone[key] for key in SHAPE if key in cfg.model.backbone}
        vit = GatedPromptViT(**shape, out_type='cls_token')  # with the norm that classification needs
        write_checkpoint(dict(model=vit.state_dict()), folder / VIT)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = build_model(cfg)
    load_vit(frozen_vit(model, name), folder / VIT)
    frozen = frozen_state(model)
    trained = {key: value for key, value in model.state_dict().items() if key not in frozen}
    write_checkpoint(dict(meta=dict(frozen=frozen_source(model)), state_dict=trained), folder / ADAPTER)

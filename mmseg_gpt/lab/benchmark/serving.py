"""Memory of a pool beside separate models, and speed of one pass for several tasks, measured with random weights."""

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ...adapters import VIT_SETTINGS, frozen_source, frozen_state
from ...apis.memory import storage_bytes
from ...apis.passes import Prepared
from ...apis.pool import AdapterPool
from ...apis.task import build_model, frozen_vit
from ...checkpoints import load_vit
from ...checkpoints.write import write_checkpoint
from ...models import GatedPromptViT
from ...models.mixed import adapter_state
from ...settings import unwrapped_datasets
from .machine import describe
from .tables import table, with_quartiles
from .timing import measure, summarise

# The settings of a backbone that decide the names and shapes of its ViT.
SHAPE = tuple(name for name in VIT_SETTINGS if name != 'img_size')
VIT, ADAPTER = 'vit.pth', 'adapter.pth'
APART, TOGETHER = 'task by task', 'one pass'


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


def measure_speed(config: Config, sides: Sequence[int], counts: Sequence[int], pool: AdapterPool, rounds: int,
                  warmup: int, seed: int, cpu_time: bool = False) -> dict:
    """Measures how fast a pool answers one image for each of some tasks, task by task and in one pass, in turn.

    The tasks have one config and adapters of their own. Images are drawn, and their reading is not measured.

    Args:
        config: A config of a classification or a segmentation.
        sides: Height and width of the images, one measurement for each; their pipelines do not change them.
        counts: Numbers of tasks, one measurement for each.
        pool: An empty pool, which is empty again at the end.
        rounds: Number of measurements of each time.
        warmup: Rounds before these, which do not count.
        seed: Seed of weights, images and orders.
        cpu_time: Whether the seconds are those that the CPU works for this process, with one thread.

    Returns:
        dict: The ``machine``, and ``times``: a list of ``image``, ``tasks``, ``tokens`` of an image, and ``seconds`` by
        way as of :func:`.timing.summarise`.
    """
    times, clock = [], time.process_time if cpu_time else time.perf_counter
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            requests = fill(pool, of_size(config, side, Path(folder)), side, max(counts), Path(folder), seed)
        for count in counts:
            work = {name: partial(answer, pool, requests[:count], name == TOGETHER) for name in (APART, TOGETHER)}
            found = summarise(measure(work, rounds, warmup, seed, pool.device, clock), APART)
            times.append(dict(image=side, tasks=count, tokens=requests[0].tokens, seconds=found))
        for name in list(pool.tasks):
            pool.remove(name)
    return dict(machine=describe(pool.device), dtype=str(pool.dtype), rounds=rounds, cpu_time=cpu_time, times=times)


def of_size(config: Config, side: int, folder: Path) -> Config:
    """Returns a config whose ViT is in a folder and made for images of a size, which its pipeline does not change."""
    cfg = copy.deepcopy(config)
    cfg.model.backbone.update(init_cfg=dict(type='PretrainedViT', checkpoint=str(folder / VIT)), img_size=side)
    if 'crop_size' in (cfg.model.get('test_cfg') or {}):
        cfg.model.test_cfg.update(crop_size=(side, side), stride=(side, side))
        cfg.model.data_preprocessor.size = (side, side)
    dataset = next(unwrapped_datasets(cfg.test_dataloader.dataset))
    dataset.pipeline = [dataset.pipeline[0], dataset.pipeline[-1]]
    return cfg


def fill(pool: AdapterPool, cfg: Config, side: int, number: int, folder: Path, seed: int) -> list[Prepared]:
    """Adds tasks with random adapters to a pool, and returns an image for each of them."""
    torch.manual_seed(seed)
    drawn = np.random.default_rng(seed)
    write_random(cfg, 'task', folder)
    requests = []
    for i in range(number):
        pool.add(f'task {i}', cfg, folder / ADAPTER)
        for value in adapter_state(pool.tasks[f'task {i}'].vit).values():
            value.data += 0.01 * torch.randn_like(value)
        requests.append(pool.prepare(f'task {i}', drawn.integers(0, 256, (side, side, 3), dtype=np.uint8)))
    return requests


def answer(pool: AdapterPool, requests: Sequence[Prepared], one_pass: bool) -> None:
    """Answers images in one of two ways."""
    pool.one_pass = one_pass
    pool.answer(requests)


def speed_table(name: str, results: dict) -> str:
    """Writes the table of the results of :func:`measure_speed`."""
    header = ['image', 'tokens', 'tasks', f'{APART}: images/s', f'{TOGETHER}: images/s', 'times as fast (quartiles)']
    rows = []
    for each in results['times']:
        seconds = each['seconds']
        rows.append([each['image'], each['tokens'], each['tasks'],
                     *(each['tasks'] / seconds[way]['median'] for way in (APART, TOGETHER)),
                     with_quartiles(seconds[TOGETHER]['speedup'])])
    machine = results['machine']
    return table(f'{name}, {results["dtype"].removeprefix("torch.")}, {machine["device"]}, {machine["threads"]} '
                 f'threads, torch {machine["versions"]["torch"]}{", CPU time" * results["cpu_time"]}', header, rows)

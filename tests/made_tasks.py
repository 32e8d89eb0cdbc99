"""Small segmentations with random weights, and images and GeoTIFFs for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomise
from mmengine.registry import DefaultScope
from tiny import small_config

from mmseg_gpt.apis import ServedTask, load_task
from mmseg_gpt.apis.task import build_model

CLASSES = tuple('abcdefghi')
PALETTE = [[20 * i, 255 - 20 * i, i] for i in range(9)]
TILES = dict(mode='slide', crop_size=(32, 32), stride=(21, 21))


def made_task(folder: Path, resize: bool = False, padded: bool = False, **test_cfg) -> ServedTask:
    """A segmentor of 9 classes with random weights, whose head can tell pixels apart."""
    cfg = small_config()
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg = test_cfg or TILES
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=8) if padded else None
    pipeline = [dict(type='LoadImageFromFile'), *([dict(type='Resize', scale=(64, 48), keep_ratio=True)] * resize),
                dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    cfg.test_dataloader.dataset.pipeline = pipeline
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(1)
        model = build_model(cfg.copy())
    randomise(model.backbone)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)  # so that pixels differ in class
    file = folder / 'model.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES, palette=PALETTE))),
               file)
    cfg.dump(folder / 'config.py')
    return load_task('tiny', cfg, file, frozen=False)


def drawn(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Blocks of colours with noise."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 230, (-(-height // 11), -(-width // 11), channels)).repeat(11, 0).repeat(11, 1)
    return (blocks[:height, :width] + random.integers(0, 25, (height, width, channels))).astype(np.uint8)


def write_geotiff(path: Path, image: np.ndarray, **profile) -> dict:
    """Writes a GeoTIFF of (H, W, C); returns its place on earth."""
    rasterio = pytest.importorskip('rasterio')
    place = dict(crs='EPSG:25832', transform=rasterio.transform.from_origin(691000, 5334000, 0.2, 0.2))
    with rasterio.open(path, 'w', driver='GTiff', height=image.shape[0], width=image.shape[1], count=image.shape[2],
                       dtype=image.dtype.name, **place, **profile) as file:
        file.write(np.moveaxis(image, 2, 0))
    return place

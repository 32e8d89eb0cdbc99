"""Makes a full-size segmentation config small enough for a test, without changing what it is."""

from mmengine.config import Config

SIZE = 64


def shrink(cfg: Config) -> Config:
    """Narrows the ViT and the heads of ``cfg`` and takes crops of 64 pixels; depth, taps and prompts stay."""
    backbone = cfg.model.backbone
    arch = backbone.get('arch', 'base')
    depth = {'base': 12, 'large': 24}[arch] if isinstance(arch, str) else arch.num_layers
    backbone.arch = dict(embed_dims=24, num_layers=depth, num_heads=2, mlp_ratio=2)
    backbone.img_size = SIZE
    for head in [cfg.model.decode_head, *cfg.model.auxiliary_head]:
        head.update(in_channels=24, channels=8)
    cfg.model.data_preprocessor.size = (SIZE, SIZE)
    cfg.model.test_cfg.update(crop_size=(SIZE, SIZE), stride=(43, 43))
    return shrink_data(cfg)


def shrink_data(cfg: Config) -> Config:
    """Divides every image scale of the pipelines by 8, keeps two test-time scales, loads in the main process."""
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'RandomResize':
            step.scale = tuple(side // 8 for side in step.scale)
        elif step.type == 'HistogramRandomCrop':
            step.crop_size = (SIZE, SIZE)
    scales = cfg.tta_pipeline[1].transforms
    scales[0] = scales[0][:2]  # each view costs logits of full size
    resizes = scales[0] + [cfg.test_pipeline[1]]
    for name in ('val_dataloader', 'test_dataloader'):
        resizes.append(cfg[name].dataset.pipeline[1])
    for step in resizes:
        step.scale = tuple(side // 8 for side in step.scale)
    cfg.train_dataloader.batch_size = 2
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
    return cfg

# MAE pretraining of a small ViT on the drawn sample dataset, with mmpretrain's own model: step 2 of tools/demo.py.
# Small enough for two CPU cores: 12 blocks as in ViT-B, but 96x96 images in 144 patches and width 128.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmseg_gpt'], allow_failed_imports=False)
max_iters = 240
size, patch_size, width = 96, 8, 128
model = dict(
    type='MAE',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=width, num_layers=12, num_heads=2, feedforward_channels=2 * width),
        img_size=size,
        patch_size=patch_size,
        mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder',
        num_patches=(size // patch_size)**2,
        patch_size=patch_size,
        embed_dim=width,
        decoder_embed_dim=64,
        decoder_depth=2,
        decoder_num_heads=4),
    # Patches are normalised, so that texture counts and not only the colour that a short run would stop at.
    head=dict(
        type='MAEPretrainHead', norm_pix=True, patch_size=patch_size,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')))
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset',
        data_root='work_dirs/demo/data',
        data_prefix=dict(img_path='images/training'),
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.6, 1.0)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs')
        ]))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # One checkpoint, at the end.
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=10**6, save_optimizer=False, filename_tmpl='mae.pth'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [dict(type='ParameterTableHook')]
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(by_epoch=False, window_size=10)
randomness = dict(seed=0)
load_from = None
resume = False
# Not settings: changing them from the command line would change nothing.
del max_iters, size, patch_size, width

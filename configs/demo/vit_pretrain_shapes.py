# Supervised pretraining of a small ViT on drawn blobs, none of which is a class of cls_gpt_shapes.py: step 2 of
# tools/demo.py --classification. (Not MAE: within a minute on two CPU cores that gave features with which a linear
# probe was hardly better than on pixels.)
_base_ = ['../_base_/runtime_cls.py']
max_iters = 1000
size, width = 32, 96
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='GatedPromptViT',
        arch=dict(embed_dims=width, num_layers=4, num_heads=3, mlp_ratio=2),
        img_size=size,
        patch_size=8,
        out_type='mean_all',
        frozen=False),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=12,
        in_channels=width,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # mmpretrain's 0.01 and the position embedding's 0.02 are slow starts for so short a run, see lr_mult too.
        init_cfg=dict(type='Normal', layer='Linear', std=0.1)))
data_preprocessor = dict(num_classes=12, mean=[127.5, 127.5, 127.5], std=[58., 58., 58.], to_rgb=True)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='work_dirs/demo_classification/data',
        data_prefix='pretrain',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]))
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.99), weight_decay=0.05),
    # Shapes are learnt when the position embedding has become some 40 times larger than it starts.
    paramwise_cfg=dict(custom_keys={'pos_embed': dict(lr_mult=200.)}),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    # One checkpoint, at the end.
    checkpoint=dict(
        by_epoch=False, interval=10**6, save_optimizer=False, max_keep_ckpts=-1, filename_tmpl='vit.pth'))
log_processor = dict(by_epoch=False, window_size=20)
# Not settings: changing them from the command line would change nothing.
del max_iters, size, width

# The replication's supervised twin of the self-supervised ViTs: the same images with their labels, 24 classes.
_base_ = ['mae_pretrain.py']
max_iters = 1500
model = dict(
    _delete_=True,
    type='ImageClassifier',
    backbone=dict(
        type='GatedPromptViT',
        arch=dict(embed_dims=64, num_layers=12, num_heads=2, mlp_ratio=2),
        img_size=48,
        patch_size=8,
        out_type='mean_all',
        frozen=False),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=24,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # mmpretrain's 0.01 and the position embedding's 0.02 are slow starts for so short a run, see lr_mult too.
        init_cfg=dict(type='Normal', layer='Linear', std=0.1)))
data_preprocessor = dict(num_classes=24, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_dataloader = dict(
    dataset=dict(
        with_label=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, betas=(0.9, 0.99), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'pos_embed': dict(lr_mult=50., decay_mult=0.)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
del max_iters  # not a setting: changing it from the command line would change nothing

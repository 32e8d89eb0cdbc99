# The replication's MAE: mmpretrain's recipe (mask ratio 0.75, AdamW, cosine), 12 blocks as in ViT-B, 36 patches.
_base_ = ['../demo/mae_pretrain_sample.py']
max_iters = 1500
model = dict(
    backbone=dict(
        arch=dict(embed_dims=64, num_layers=12, num_heads=2, feedforward_channels=128), img_size=48, patch_size=8),
    neck=dict(num_patches=36, embed_dim=64))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='work_dirs/replicate/data',
        data_prefix='pretraining/train',
        with_label=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.6, 1.0)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs')
        ]))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
# With the optimizer: what is interrupted goes on.
default_hooks = dict(checkpoint=dict(filename_tmpl='vit.pth', save_optimizer=True))
del max_iters  # not a setting: changing it from the command line would change nothing

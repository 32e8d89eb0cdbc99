# The replication's MoCo v3: mmpretrain's recipe (two views, momentum encoder, predictor, temperature 0.2, frozen patch
# projection) with a projector of the ViT's size. Crops are larger and blur is weaker than for photographs.
_base_ = ['mae_pretrain.py']
max_iters = 1500
width, out = 64, 64
perceptron = dict(
    type='NonLinearNeck',
    hid_channels=256,
    out_channels=out,
    with_bias=False,
    with_last_bn=True,
    with_last_bn_affine=False,
    with_last_bias=False,
    with_avg_pool=False,
    norm_cfg=dict(type='BN1d'))
model = dict(
    _delete_=True,
    type='MoCoV3',
    base_momentum=0.01,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        type='MoCoV3ViT',
        arch=dict(embed_dims=width, num_layers=12, num_heads=2, feedforward_channels=2 * width),
        img_size=48,
        patch_size=8,
        stop_grad_conv1=True),
    neck=dict(perceptron, in_channels=width, num_layers=3),
    head=dict(
        type='MoCoV3Head',
        predictor=dict(perceptron, in_channels=out, num_layers=2),
        loss=dict(type='CrossEntropyLoss', loss_weight=2 * 0.2),
        temperature=0.2))
# Hues are turned one way: mmcv's adjust_hue fails on negative turns with NumPy 2.
jitter = dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=(0., 0.1))
view = [
    dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.3, 1.)),
    dict(type='RandomApply', transforms=[jitter], prob=0.8),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989))
]
flip = dict(type='RandomFlip', prob=0.5)
first = [*view, dict(type='GaussianBlur', magnitude_range=(0.1, 0.6), magnitude_std='inf', prob=0.5), flip]
second = [*view, dict(type='Solarize', thr=128, prob=0.2), flip]
train_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='MultiView', num_views=[1, 1], transforms=[first, second]),
        dict(type='PackInputs')
    ]))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
# Not settings: changing them from the command line would change nothing.
del max_iters, width, out, perceptron, jitter, view, flip, first, second

# AdamW, 40k iterations, with the optimizer that DINOv3's authors have for a linear head on ADE20K and a batch of 16
# (dinov3/eval/segmentation/config.py in facebookresearch/dinov3). The 1500 iterations of warm-up and the cosine to 0
# are those of another project that says it follows them.
# What is trained in the ViT has 0.3 of the head's rate. That is ours, and has not been searched.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=35.),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.3)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=1500, end=40000, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

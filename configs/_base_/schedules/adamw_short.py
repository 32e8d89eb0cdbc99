# A short training in bfloat16: AdamW, a tenth of the iterations to warm up, then a cosine to 0. The learning rate is
# that of the head; what is trained in the ViT has its own by lr_mult, and no weight decay.
max_iters = 200
optim_wrapper = dict(
    type='Bf16OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1, decay_mult=0.)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
test_cfg = dict(type='TestLoop', fp16=True)  # on a CPU this is bfloat16
del max_iters

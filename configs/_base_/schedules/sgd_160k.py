# The SETR recipe: SGD, lr 0.001 and 10 times that for the heads, poly decay to 1e-4, 160k iterations.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)}))
param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=160000, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

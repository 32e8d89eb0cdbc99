# SETR-PUP with gated prompts on the frozen MAE ViT of mae_pretrain_sample.py: the main config in small, for
# step 4 of tools/demo.py.
_base_ = ['../_base_/heads/setr_pup.py', '../_base_/runtime_seg.py']
data_root = 'work_dirs/demo/data'
max_iters = 400
size = 96
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    num_classes=9,
    crop_size=(size, size),
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=12, num_heads=2, mlp_ratio=2),
        patch_size=8,
        # The paper's gates start almost closed, at a prior of -10, where a few hundred iterations do not move
        # them. From 0, half open, and with a learning rate of their own (below) they do.
        prompt=dict(type='GatedPrompt', num_tokens=10, gate_init=0.),
        temperature=True,
        init_cfg=dict(type='PretrainedViT', checkpoint='work_dirs/demo/mae/mae.pth')),
    # Patches are half as wide as ViT-B/16's, so the heads upsample half as often.
    decode_head=dict(channels=64, num_convs=3, norm_cfg=norm_cfg),
    auxiliary_head=dict(channels=32, num_convs=1, norm_cfg=norm_cfg),
    test_cfg=dict(_delete_=True, mode='whole'))
metainfo = dict(
    classes=('sky', 'water', 'grass', 'brick', 'paving', 'tree', 'ball', 'house', 'zebra'),
    palette=[(136, 204, 238), (51, 34, 136), (68, 170, 153), (204, 102, 119), (153, 153, 51), (17, 119, 51),
             (170, 68, 153), (136, 34, 85), (221, 204, 119)])
dataset = dict(type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=True)
labels = dict(type='LoadAnnotations', reduce_zero_label=True)
train_dataloader = dict(
    batch_size=8,  # for the same time, twice the steps of a batch of 16: a short run wants steps
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            labels,
            dict(type='RandomResize', scale=(size, size), ratio_range=(1.0, 1.4), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(size, size)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs')
        ]))
val_dataloader = dict(
    batch_size=5,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=[dict(type='LoadImageFromFile'), labels, dict(type='PackSegInputs')]))
test_dataloader = val_dataloader
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (0.75, 1.0, 1.25, 1.5)],
                    [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)], [labels],
                    [dict(type='PackSegInputs')]])
]
val_evaluator = dict(type='PerClassIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
# AdamW instead of the paper's SGD, and larger steps for what is adapted: this run has a few hundred iterations,
# not 160,000.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={
        'prompt.tokens': dict(lr_mult=2., decay_mult=0.),
        'gate_prior': dict(lr_mult=20., decay_mult=0.),
        'temperature': dict(lr_mult=5., decay_mult=0.)}))
param_scheduler = [dict(type='PolyLR', eta_min=0., power=0.9, begin=0, end=max_iters, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=5),
    # One checkpoint, at the end.
    checkpoint=dict(interval=10**6, save_optimizer=False, max_keep_ckpts=-1, filename_tmpl='adapted.pth'))
log_processor = dict(window_size=20)
# Not settings: changing them from the command line would change nothing.
del data_root, max_iters, size, norm_cfg, metainfo, dataset, labels

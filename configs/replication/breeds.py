# The replication's fine-grained task, after CUB: gated prompts on its MAE. tools/replicate.py derives the other
# methods, ViTs and learning rates from this.
_base_ = ['../_base_/runtime_cls.py']
max_iters = 200
data_root = 'work_dirs/replicate/data'
width, num_classes = 64, 12
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='GatedPromptViT',
        arch=dict(embed_dims=width, num_layers=12, num_heads=2, mlp_ratio=2),
        img_size=48,
        patch_size=8,
        out_type='mean_all',
        prompt=dict(type='GatedPrompt', num_tokens=12, gate_init=5.),
        temperature=True,
        init_cfg=dict(type='PretrainedViT', checkpoint='work_dirs/replicate/runs/pretrain_mae/vit.pth')),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=num_classes,
        in_channels=width,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
data_preprocessor = dict(
    num_classes=num_classes, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='breeds/train',
        pipeline=[load, dict(type='RandomFlip', prob=0.5), pack]))
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root=data_root, data_prefix='breeds/test', pipeline=[load, pack]))
test_evaluator = dict(type='Accuracy', topk=(1, ))
test_cfg = dict()
# AdamW instead of the paper's SGD, as these runs are short; one learning rate for all that is trained, as there.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=0.02, weight_decay=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    # One checkpoint, at the end.
    checkpoint=dict(by_epoch=False, interval=10**6, max_keep_ckpts=-1))
log_processor = dict(by_epoch=False, window_size=50)
# Not settings: changing them from the command line would change nothing.
del max_iters, data_root, width, num_classes, load, pack

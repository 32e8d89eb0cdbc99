# The replication's segmentation: SETR-PUP in small with gated prompts on its MAE. tools/replicate.py derives the other
# methods, ViTs and learning rates from this.
_base_ = ['../demo/setr_pup_gpt_mae_sample.py']
max_iters = 300
data_root = 'work_dirs/replicate/data/scenes'
model = dict(
    crop_size=(48, 48),
    backbone=dict(
        arch=dict(embed_dims=64, num_layers=12, num_heads=2, mlp_ratio=2),
        prompt=dict(type='GatedPrompt', num_tokens=12, gate_init=5.),
        init_cfg=dict(type='PretrainedViT', checkpoint='work_dirs/replicate/runs/pretrain_mae/vit.pth')),
    decode_head=dict(channels=32, num_convs=2),
    auxiliary_head=dict(channels=16))
load, labels = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        img_suffix='.png',
        pipeline=[load, labels, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]))
test_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'),
        img_suffix='.png'))
tta_pipeline = [
    load,
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='Resize', scale_factor=ratio, keep_ratio=True) for ratio in (1.0, 1.25, 1.5)],
                    [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)], [labels],
                    [dict(type='PackSegInputs')]])
]
val_dataloader = val_evaluator = val_cfg = None
# AdamW instead of the paper's SGD, as these runs are short; one learning rate for all that is trained, as there.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=0.02, weight_decay=0.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(save_optimizer=True))
log_processor = dict(window_size=50)
# Not settings: changing them from the command line would change nothing.
del max_iters, data_root, load, labels

# A linear head on four blocks of DINOv2's ViT-S/14, for the streets of CamVid: what tools/demo_photographs.py trains.
# No image is changed at random, so that features can be kept (--keep-features) and the ViT sees each image once.
_base_ = ['../_base_/backbones/dinov2_s.py', '../_base_/heads/linear_4.py', '../_base_/runtime_seg.py']
from mmseg_gpt.datasets.photographs import PHOTOGRAPHS  # noqa: E402

camvid = PHOTOGRAPHS['camvid']
home = 'work_dirs/demo_photographs'
max_iters = 600
# Images have 360 x 480 pixels. Enlarged, the patches of 14 pixels are finer: 30 x 40 of them.
size = (420, 560)
model = dict(
    num_classes=len(camvid.classes),
    crop_size=size,
    data_preprocessor=dict(seg_pad_val=camvid.ignored),
    backbone=dict(**_base_.vit, out_indices=(2, 5, 8, 11)),
    decode_head=dict(norm_cfg=dict(type='BN', requires_grad=True), ignore_index=camvid.ignored),
    test_cfg=dict(_delete_=True, mode='whole'))
metainfo = dict(classes=camvid.classes, palette=camvid.palette)
dataset = dict(type='ListedPairs', data_root=f'{home}/lists', metainfo=metainfo, ignore_index=camvid.ignored)
resize = dict(type='Resize', scale=size[::-1], keep_ratio=False)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        ann_file='train.csv',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), resize, dict(type='PackSegInputs')]))
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset,
        ann_file='val.csv',
        # Labels come after Resize, because the score is computed at the original size.
        pipeline=[dict(type='LoadImageFromFile'), resize, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], ann_file='test.csv'))
val_evaluator = dict(type='PerClassIoUMetric', iou_metrics=['mIoU'], ignore_index=camvid.ignored)
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainedPartsConstructor',
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=30, by_epoch=False),
    dict(type='PolyLR', eta_min=0., power=0.9, begin=30, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=20),
    # One checkpoint, at the end.
    checkpoint=dict(interval=10**6, save_optimizer=False, max_keep_ckpts=-1, filename_tmpl='adapted.pth'))
# Not settings: changing them from the command line would change nothing.
del PHOTOGRAPHS, camvid, home, max_iters, size, metainfo, dataset, resize

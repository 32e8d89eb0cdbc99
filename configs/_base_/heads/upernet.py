# UPerNet on a pyramid made of four blocks, with an auxiliary FCN head on the third of them. Blocks and widths are those
# of mmsegmentation's mae-base_upernet and beit-large_upernet ADE20K configs. The heads are mmsegmentation's in less
# time and memory: either load the others' checkpoints.
_base_ = '../segmentor.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(out_indices={12: (3, 5, 7, 11), 24: (7, 11, 15, 23), 32: (10, 15, 20, 31)}),
    neck=dict(type='Feature2Pyramid', rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
    decode_head=dict(
        type='LeanUPerHead',
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='LeanFCNHead',
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)))
del norm_cfg

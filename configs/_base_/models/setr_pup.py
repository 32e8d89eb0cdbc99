# SETR-PUP on a frozen ViT-B/16, which is the backbone's default: decode head on block 12, auxiliary
# heads on blocks 5 and 9 (paper, section 5.1).
# Heads as in mmsegmentation's setr_vit-l_pup ADE20K config; the backbone has no final norm. LeanSETRUPHead is
# mmsegmentation's SETRUPHead in less time and memory: either loads the other's checkpoints.
norm_cfg = dict(type='SyncBN', requires_grad=True)
auxiliary_head = dict(
    type='LeanSETRUPHead',
    in_channels=768,
    channels=256,
    num_classes=150,
    dropout_ratio=0,
    norm_cfg=norm_cfg,
    act_cfg=dict(type='ReLU'),
    num_convs=2,
    up_scale=4,
    kernel_size=3,
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4))
model = dict(
    type='LeanEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        size=(512, 512),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='GatedPromptViT',
        img_size=512,
        out_indices=(4, 8, 11),
        out_type='featmap',
        frozen=True),
    decode_head=dict(
        auxiliary_head,
        in_index=2,
        num_convs=4,
        up_scale=2,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=[dict(auxiliary_head, in_index=0), dict(auxiliary_head, in_index=1)],
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
del norm_cfg, auxiliary_head

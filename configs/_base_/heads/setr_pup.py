# SETR-PUP: a decode head on the last block and an auxiliary head on each block before it. Of 12 blocks those are 5, 9
# and 12 (paper, section 5.1), of 24 they are 10, 15, 20 and 24 (SETR on its ViT-L); here blocks are counted from 0.
# Heads as in mmsegmentation's setr_vit-l_pup ADE20K config; the backbone has no final norm. LeanSETRUPHead is
# mmsegmentation's SETRUPHead in less time and memory: either loads the other's checkpoints.
_base_ = '../segmentor.py'
head = dict(
    type='LeanSETRUPHead',
    channels=256,
    dropout_ratio=0,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    act_cfg=dict(type='ReLU'),
    kernel_size=3,
    align_corners=False)
model = dict(
    backbone=dict(out_indices={12: (4, 8, 11), 24: (9, 14, 19, 23), 32: (12, 19, 26, 31)}),
    decode_head=dict(
        head,
        num_convs=4,
        up_scale=2,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        head,
        num_convs=2,
        up_scale=4,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)))
del head

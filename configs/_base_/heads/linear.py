# The linear protocol of DINOv2 and DINOv3: batch norm and a 1x1 convolution on the patch features of the last block,
# after the ViT's own final norm. It shows what the features hold rather than what a decoder makes of them.
_base_ = '../segmentor.py'
model = dict(
    backbone=dict(out_type='normed_featmap'),
    decode_head=dict(
        type='LinearHead',
        dropout_ratio=0,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))

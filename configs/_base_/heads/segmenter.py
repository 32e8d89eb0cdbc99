# Segmenter's mask transformer on the last block, after the ViT's final norm: two blocks in which patches and one token
# for each class attend to each other. The head is that of mmsegmentation's segmenter_vit-b_mask ADE20K config in less
# time and memory: either loads the other's checkpoints. It is as wide as the ViT, with heads of 64 channels.
_base_ = '../segmentor.py'
model = dict(
    backbone=dict(out_type='normed_featmap'),
    decode_head=dict(
        type='LeanSegmenterMaskTransformerHead',
        num_layers=2,
        dropout_ratio=0,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))

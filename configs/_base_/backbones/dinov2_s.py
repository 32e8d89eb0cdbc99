# ViT-S/14, DINOv2.
_base_ = 'dinov2_b.py'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint='pretrained/dinov2_vits14_pretrain.pth')),
    decode_head=dict(in_channels=384),
    auxiliary_head=[dict(head, in_channels=384) for head in _base_.model.auxiliary_head])

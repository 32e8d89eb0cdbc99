# ViT-S/16, MoCo v3 (300 epochs). MoCo v3's ViT-S has 12 heads, unlike the usual 6: no checkpoint shows it.
_base_ = '../models/setr_pup.py'
model = dict(
    backbone=dict(
        arch=dict(embed_dims=384, num_layers=12, num_heads=12, mlp_ratio=4),
        init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/linear-vit-s-300ep.pth.tar')),
    decode_head=dict(in_channels=384),
    auxiliary_head=[dict(head, in_channels=384) for head in _base_.model.auxiliary_head])

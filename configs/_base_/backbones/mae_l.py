# ViT-L/16, MAE, ImageNet-1K. Heads on blocks 10, 15, 20 and 24, as SETR has them on its ViT-L.
_base_ = '../models/setr_pup.py'
model = dict(
    backbone=dict(
        arch='large',
        out_indices=(9, 14, 19, 23),
        init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/mae_pretrain_vit_large.pth')),
    decode_head=dict(in_channels=1024, in_index=3),
    auxiliary_head=[dict(_base_.model.auxiliary_head[0], in_channels=1024, in_index=i) for i in range(3)])

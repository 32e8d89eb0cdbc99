# ViT-B/16, MAE, ImageNet-1K.
_base_ = '../models/setr_pup.py'
model = dict(
    backbone=dict(
        init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/mae_pretrain_vit_base.pth')))

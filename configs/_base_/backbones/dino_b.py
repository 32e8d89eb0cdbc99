# ViT-B/16, DINO, ImageNet-1K.
_base_ = '../models/setr_pup.py'
model = dict(
    backbone=dict(
        init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/dino_vitbase16_pretrain.pth')))

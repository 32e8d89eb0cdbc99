# ViT-B/16, MAE, ImageNet-1K.
vit = dict(init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/mae_pretrain_vit_base.pth'))

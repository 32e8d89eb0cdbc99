# ViT-L/16, MAE, ImageNet-1K.
vit = dict(arch='large', init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/mae_pretrain_vit_large.pth'))

# ViT-B/16, DINO, ImageNet-1K.
vit = dict(init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/dino_vitbase16_pretrain.pth'))

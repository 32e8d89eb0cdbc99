# ViT-L/14, DINOv2.
_base_ = 'dinov2_b.py'
vit = dict(arch='large', init_cfg=dict(checkpoint='pretrained/dinov2_vitl14_pretrain.pth'))

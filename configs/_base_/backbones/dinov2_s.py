# ViT-S/14, DINOv2.
_base_ = 'dinov2_b.py'
vit = dict(arch='small', init_cfg=dict(checkpoint='pretrained/dinov2_vits14_pretrain.pth'))

# ViT-S/16, DINOv3, LVD-1689M (DINOv3 License).
_base_ = 'dinov3_b.py'
vit = dict(arch='small', init_cfg=dict(checkpoint='pretrained/dinov3_vits16_pretrain_lvd1689m-08c60483.pth'))

# ViT-L/16, DINOv3, LVD-1689M (DINOv3 License).
_base_ = 'dinov3_b.py'
vit = dict(arch='large', init_cfg=dict(checkpoint='pretrained/dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth'))

# ViT-S+/16, DINOv3, LVD-1689M (DINOv3 License).
_base_ = 'dinov3_s.py'
vit = dict(gated_mlp=True, init_cfg=dict(checkpoint='pretrained/dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth'))

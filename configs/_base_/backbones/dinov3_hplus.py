# ViT-H+/16, DINOv3, LVD-1689M (DINOv3 License).
_base_ = 'dinov3_b.py'
vit = dict(
    arch='huge_plus',
    gated_mlp=True,
    init_cfg=dict(checkpoint='pretrained/dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth'))

# ViT-L/16, DINOv3, satellite images of SAT-493M (DINOv3 License), with the mean and std of these.
_base_ = 'dinov3_l.py'
vit = dict(
    mean=[109.65, 104.805, 75.48],
    std=[54.315, 39.78, 36.465],
    init_cfg=dict(checkpoint='pretrained/dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth'))

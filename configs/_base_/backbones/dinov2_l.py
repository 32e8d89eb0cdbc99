# ViT-L/14, DINOv2. Heads on the blocks of mae_l.py, patches as in dinov2_b.py.
_base_ = 'mae_l.py'
model = dict(
    data_preprocessor=dict(size=(518, 518), test_cfg=dict(size_divisor=14)),
    backbone=dict(
        img_size=518, patch_size=14, layer_scale=True,
        init_cfg=dict(checkpoint='pretrained/dinov2_vitl14_pretrain.pth')),
    test_cfg=dict(crop_size=(518, 518), stride=(345, 345)))

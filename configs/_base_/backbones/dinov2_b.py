# ViT-B/14, DINOv2. 512 is no multiple of 14, so images are padded to 518, a grid of 37x37, with labels to ignore:
# left to the backbone's own padding, a map of 518 pixels would be stretched over labels of 512.
_base_ = '../models/setr_pup.py'
model = dict(
    data_preprocessor=dict(size=(518, 518), test_cfg=dict(size_divisor=14)),
    backbone=dict(
        img_size=518,
        patch_size=14,
        layer_scale=True,
        init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/dinov2_vitb14_pretrain.pth')),
    test_cfg=dict(crop_size=(518, 518), stride=(345, 345)))

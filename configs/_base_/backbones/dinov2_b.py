# ViT-B/14, DINOv2.
vit = dict(
    patch_size=14,
    layer_scale=True,
    init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/dinov2_vitb14_pretrain.pth'))

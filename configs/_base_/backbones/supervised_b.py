# ViT-B/16, supervised, ImageNet-21K. It was trained with mean and std 0.5; as in VPT, ImageNet's are used.
vit = dict(init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/ViT-B_16.npz'))

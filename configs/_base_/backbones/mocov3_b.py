# ViT-B/16, MoCo v3 (300 epochs), ImageNet-1K; the linear-probe file holds the same backbone.
vit = dict(init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/linear-vit-b-300ep.pth.tar'))

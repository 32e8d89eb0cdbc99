# ViT-S/16, MoCo v3 (300 epochs). MoCo v3's ViT-S has 12 heads, unlike the usual 6: no checkpoint shows it.
vit = dict(
    arch=dict(embed_dims=384, num_layers=12, num_heads=12, mlp_ratio=4),
    init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/linear-vit-s-300ep.pth.tar'))

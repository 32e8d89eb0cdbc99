# ViT-B/16, DINOv3, LVD-1689M. The weights are under the DINOv3 License, which goes with every copy and derivative.
vit = dict(
    layer_scale=True,
    num_registers=4,
    rotary='bfloat16',
    qkv_bias='qv',
    norm_eps=1e-5,
    init_cfg=dict(type='PretrainedViT', checkpoint='pretrained/dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth'))

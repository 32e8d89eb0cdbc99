# ViT-B/14, DINOv2 with 4 registers.
_base_ = 'dinov2_b.py'
vit = dict(num_registers=4, init_cfg=dict(checkpoint='pretrained/dinov2_vitb14_reg4_pretrain.pth'))

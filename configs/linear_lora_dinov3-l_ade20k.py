# Linear head on ADE20K, frozen DINOv3 ViT-L/16, LoRA of rank 16.
# Not measured yet. The goal is mIoU 57, single-scale; its authors report 54.9 for the head alone.
_base_ = [
    '_base_/backbones/dinov3_l.py',
    '_base_/heads/linear.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_40k.py',
    '_base_/runtime_seg.py',
]
model = dict(
    backbone=dict(**_base_.vit, lora=dict(rank=16, alpha=16)),
    decode_head=dict(dropout_ratio=0.1),
    num_classes=_base_.num_classes,
    crop_size=_base_.crop_size)

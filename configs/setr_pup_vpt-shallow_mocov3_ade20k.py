# SETR-PUP on ADE20K, MoCo v3 ViT-B/16. VPT-shallow, 100 prompts (Table 3).
# The paper reports mIoU 34.55 / 36.18 (single-scale / multi-scale).
_base_ = [
    '_base_/backbones/mocov3_b.py',
    '_base_/heads/setr_pup.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/sgd_160k.py',
    '_base_/runtime_seg.py',
]
model = dict(
    backbone=dict(**_base_.vit, prompt=dict(type='ShallowPrompt', num_tokens=100)),
    num_classes=_base_.num_classes,
    crop_size=_base_.crop_size)

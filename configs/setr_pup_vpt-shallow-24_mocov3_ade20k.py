# SETR-PUP on ADE20K, MoCo v3 ViT-B/16. VPT-shallow, 24 prompts (Table 6).
# The paper reports mIoU 34.75 / 36.34 (single-scale / multi-scale).
_base_ = [
    '_base_/backbones/mocov3_b.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/sgd_160k.py',
    '_base_/runtime_seg.py',
]
model = dict(backbone=dict(prompt=dict(type='ShallowPrompt', num_tokens=24)))

# SETR-PUP on ADE20K, MoCo v3 ViT-B/16. Ablation: temperatures without gates (Figure 6).
# The paper shows it as a bar, without a number.
_base_ = [
    '_base_/backbones/mocov3_b.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/sgd_160k.py',
    '_base_/runtime_seg.py',
]
model = dict(backbone=dict(prompt=dict(type='ShallowPrompt', num_tokens=100), temperature=True))

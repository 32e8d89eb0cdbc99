# SETR-PUP on ADE20K, MAE ViT-B/16. Baseline: full fine-tuning, with the same recipe.
# Nobody has published a number for this.
_base_ = [
    '_base_/backbones/mae_b.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/sgd_160k.py',
    '_base_/runtime_seg.py',
]
model = dict(backbone=dict(prompt=None, frozen=False))

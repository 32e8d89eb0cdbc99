# Gated Prompt Tuning of DINOv2's ViT-S with a linear head on CamVid. `mmseg-gpt study camvid` derives other methods,
# heads, sizes and learning rates from this.
_base_ = [
    '../_base_/backbones/dinov2_s.py',
    '../_base_/heads/linear.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_short.py',
    '../_base_/runtime_seg.py',
]
model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=14)),
    backbone=dict(**_base_.vit, prompt=dict(type='GatedPrompt', num_tokens=12, gate_init=5.), temperature=True),
    num_classes=_base_.num_classes,
    crop_size=_base_.crop_size,
    test_cfg=dict(_delete_=True, mode='whole'))
val_cfg = dict(type='ValLoop')
default_hooks = dict(
    logger=dict(interval=50),
    # One checkpoint, at the end, without what it shares with the pretrained file.
    checkpoint=dict(interval=10**6, max_keep_ckpts=-1, adapter_only=True, save_optimizer=False))
log_processor = dict(window_size=50)

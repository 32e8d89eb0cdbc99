# What all heads have around them: a frozen ViT, whose settings a config puts into `backbone`, and sliding windows.
# Widths, class counts and the size of windows follow from the ViT and the dataset: see mmseg_gpt/models/complete.py.
model = dict(
    type='LeanEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(type='GatedPromptViT', out_type='featmap', frozen=True),
    train_cfg=dict(),
    test_cfg=dict(mode='slide'))

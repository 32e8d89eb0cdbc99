# The linear protocol of DINOv2 on the last four blocks: the patch features of each, after the ViT's own final norm, are
# concatenated before batch norm and a 1x1 convolution.
_base_ = 'linear.py'
model = dict(
    backbone=dict(out_indices=(-4, -3, -2, -1)),
    decode_head=dict(in_index=(0, 1, 2, 3), input_transform='resize_concat'))

# Photographs in a folder for each class, which train.txt and test.txt list with their class numbers, at 224 pixels. A
# set on top of this says its folder, its classes and how many these are.
size = 224
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,  # a last batch of one image has no variance
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        ann_file='train.txt',
        pipeline=[
            load,
            dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.5, 1.)),
            dict(type='RandomFlip', prob=0.5), pack
        ]))
test_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        ann_file='test.txt',
        pipeline=[
            load,
            dict(type='ResizeEdge', scale=size * 8 // 7, edge='short'),
            dict(type='CenterCrop', crop_size=size), pack
        ]))
test_evaluator = dict(type='Accuracy', topk=(1, ))
# Not settings: changing them from the command line would change nothing.
del size, load, pack

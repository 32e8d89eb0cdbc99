# Ten of the 47 textures of the Describable Textures Dataset, 120 photographs of each, in a folder for each texture.
# train.txt and test.txt list images and their class numbers; `mmseg-gpt study dtd10` writes such lists. At 224 pixels.
num_classes = 10
data_root = 'data/dtd10'
size = 224
dataset = dict(
    type='CustomDataset',
    data_root=data_root,
    metainfo=dict(
        classes=('banded', 'blotchy', 'braided', 'bubbly', 'bumpy', 'chequered', 'cobwebbed', 'cracked', 'crosshatched',
                 'crystalline')))
load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,  # a last batch of one image has no variance
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
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
        dataset,
        ann_file='test.txt',
        pipeline=[
            load,
            dict(type='ResizeEdge', scale=size * 8 // 7, edge='short'),
            dict(type='CenterCrop', crop_size=size), pack
        ]))
test_evaluator = dict(type='Accuracy', topk=(1, ))
# Not settings: changing them from the command line would change nothing.
del data_root, size, dataset, load, pack

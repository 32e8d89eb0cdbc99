# CamVid at 480 x 360 with its 11 classes, as SegNet's authors share it: 367, 101 and 233 images. Images are evaluated
# at this size, padded to whole patches; the score is computed at the original size.
num_classes = 11
crop_size = (224, 224)
data_root = 'data/camvid'
dataset = dict(type='CamVid', data_root=data_root)
load, labels, pack = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')
test_pipeline = [load, dict(type='Resize', scale=(480, 360), keep_ratio=True), labels, pack]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=[
            load, labels,
            dict(type='RandomResize', scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True),
            dict(type='HistogramRandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'), pack
        ]))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset, data_prefix=dict(img_path='val', seg_map_path='valannot'), pipeline=test_pipeline))
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        dataset, data_prefix=dict(img_path='test', seg_map_path='testannot'), pipeline=test_pipeline))
val_evaluator = dict(type='PerClassIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
# Not settings: changing them from the command line would change nothing.
del data_root, dataset, load, labels, pack

# The replication's task of position and scale, after KITTI in VTAB-1K.
_base_ = ['breeds.py']
model = dict(head=dict(num_classes=5))
data_preprocessor = dict(num_classes=5)
train_dataloader = dict(dataset=dict(data_prefix='distances/train'))
test_dataloader = dict(dataset=dict(data_prefix='distances/test'))

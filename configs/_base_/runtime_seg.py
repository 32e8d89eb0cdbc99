# What every segmentation run shares.
_base_ = 'runtime.py'
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_gpt', 'mmseg_gpt.segmentation'])
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=3),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
tta_model = dict(type='LeanSegTTAModel')

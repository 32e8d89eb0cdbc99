# What every classification run shares.
_base_ = 'runtime.py'
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmseg_gpt', 'mmseg_gpt.classification.datasets'])
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10),
    checkpoint=dict(type='AtomicCheckpointHook', by_epoch=True, interval=10, max_keep_ckpts=1),
    visualization=dict(type='VisualizationHook', enable=False))
log_processor = dict(by_epoch=True)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

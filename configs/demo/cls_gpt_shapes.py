# Gated prompts on the frozen ViT of vit_pretrain_shapes.py: step 3 of tools/demo.py --classification.
# Accuracy 76.9 +- 1.1, where chance is 10 (3 seeds of drawing, pretraining and adaptation: 77.1, 75.8, 77.9). The
# linear head alone, --cfg-options model.backbone.prompt=None model.backbone.temperature=False, has 75.6 +- 1.8.
_base_ = ['vit_pretrain_shapes.py']
max_iters = 560
model = dict(
    backbone=dict(
        frozen=True,
        # The paper's gates start almost closed, at a prior of -10 or so, where a few hundred iterations do not move
        # them; these start at 0.12.
        prompt=dict(type='GatedPrompt', num_tokens=8, gate_init=2.),
        temperature=True,
        init_cfg=dict(type='PretrainedViT', checkpoint='work_dirs/demo_classification/pretrained/vit.pth')),
    head=dict(num_classes=10))
data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(data_prefix='train'))
test_dataloader = dict(
    batch_size=100,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='work_dirs/demo_classification/data',
        data_prefix='test',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_evaluator = dict(type='Accuracy', topk=(1, ))
test_cfg = dict()
# AdamW instead of the paper's SGD, as this run is short.
optim_wrapper = dict(
    optimizer=dict(lr=0.03, weight_decay=0.),
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, head=dict(lr_mult=0.3))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=max_iters // 10, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=0., begin=max_iters // 10, end=max_iters, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(checkpoint=dict(filename_tmpl='adapted.pth'))
del max_iters  # not a setting: changing it from the command line would change nothing

# Gated Prompt Tuning of DINOv2's ViT-S on ten textures. `mmseg-gpt study dtd10` derives other methods, sizes and
# learning rates from this.
_base_ = ['../_base_/datasets/dtd10.py', '../_base_/schedules/adamw_short.py', '../_base_/runtime_cls.py']
from mmseg_gpt.recipes.experiment import PIXELS  # noqa: E402
from mmseg_gpt.recipes.experiment import model as classifier  # noqa: E402
from mmseg_gpt.recipes.methods import options  # noqa: E402

model = classifier(options('gpt', 12, 5.), 'dinov2-s', _base_.num_classes)
data_preprocessor = dict(num_classes=_base_.num_classes, to_rgb=True, **PIXELS)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    # One checkpoint, at the end, without what it shares with the pretrained file.
    checkpoint=dict(by_epoch=False, interval=10**6, max_keep_ckpts=-1, adapter_only=True, save_optimizer=False))
log_processor = dict(by_epoch=False, window_size=50)
# Not settings: changing them from the command line would change nothing.
del PIXELS, classifier, options

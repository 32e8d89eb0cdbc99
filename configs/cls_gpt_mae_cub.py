# Gated Prompt Tuning on CUB-200-2011, MAE ViT-B/16. The paper reports 70.56 (Table 1).
# Every other name cls_METHOD_VIT_TASK is a config without a file: python tools/train.py cls_vpt-deep_mocov3_cars
_base_ = ['_base_/schedules/sgd_100e.py', '_base_/runtime_cls.py']
from mmseg_gpt.recipes import experiment  # noqa: E402

locals().update(experiment('cls_gpt_mae_cub'))

"""Experiments of classification by name: ``cls_METHOD_VIT_TASK`` stands for some thousand configs.

Sources: sections 5.1, A.2 and Table 5 of arXiv 2306.05067, and what the authors' public code does where they are
silent (the initial weights of the head, the images used for training).
"""

import math
from pathlib import Path

from mmengine.config import Config

from ..resources import CONFIGS
from .tasks import TASKS, Hyperparameters, Task, hyperparameters

# What of the backbone is trained, as settings of GatedPromptViT.
METHODS = {
    'gpt': lambda h: dict(prompt=gated('GatedPrompt', h), temperature=True),
    'hard-gates': lambda h: dict(prompt=gated('HardGatedPrompt', h), temperature=True),
    'gates-only': lambda h: dict(prompt=gated('GatedPrompt', h)),
    'temperatures-only': lambda h: dict(prompt=shallow(h), temperature=True),
    'vpt-shallow': lambda h: dict(prompt=shallow(h)),
    # The paper has 10 in each block where its own method has 100; where that has few, as many in each block.
    'vpt-deep': lambda h: dict(prompt=dict(type='DeepPrompt', num_tokens=min(h.prompts, 10))),
    'linear': lambda h: dict(prompt=None),
    'full': lambda h: dict(prompt=None, frozen=False),
}
FULL_LR = 0.01  # Not of the paper, whose rates are for a frozen ViT.


def experiment(name: str) -> dict:
    """The settings of an experiment beside ``_base_/schedules/sgd_100e.py`` and ``_base_/runtime_cls.py``.

    Args:
        name: ``cls_METHOD_VIT_TASK``, such as 'cls_gpt_mae_cub': one of ``METHODS``, of :func:`vits` and of ``TASKS``.

    Returns:
        dict: ``model``, ``data_preprocessor``, the data loaders and evaluators, and the learning rate.

    Raises:
        ValueError: there is no such experiment; the message says which part of the name is unknown.
    """
    method, vit, task = parts(name)
    chosen = hyperparameters(vit, task)
    return dict(
        model=model(METHODS[method](chosen), vit, TASKS[task].classes),
        data_preprocessor=dict(
            num_classes=TASKS[task].classes, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        optim_wrapper=dict(optimizer=dict(lr=FULL_LR if method == 'full' else chosen.lr)),
        **data(TASKS[task], chosen))


def read_experiment(name: str) -> Config:
    """Returns the config of an experiment, as if a file with its name were in ``configs/``.

    Args:
        name: ``cls_METHOD_VIT_TASK``, see ``experiment``.

    Raises:
        ValueError: there is no such experiment; the message says which part of the name is unknown.
    """
    settings = experiment(name)
    # With a text, MMEngine does not look for the file, whose name that of the run is taken from.
    cfg = Config({}, cfg_text=f'# {name}', filename=str(CONFIGS / f'{name}.py'))
    for base in ('schedules/sgd_100e.py', 'runtime_cls.py'):
        cfg.merge_from_dict(Config.fromfile(CONFIGS / '_base_' / base).to_dict())
    cfg.merge_from_dict(settings)
    return cfg


def parts(name: str) -> tuple[str, str, str]:
    """The method, the ViT and the task in the name of an experiment.

    Raises:
        ValueError: one of them is unknown.
    """
    start, method, vit, task = [*name.split('_', 3), '', '', ''][:4]
    if start != 'cls' or not task:
        raise ValueError(f'{name} is not of the form cls_METHOD_VIT_TASK, such as cls_gpt_mae_cub')
    for what, part, known in (('method', method, METHODS), ('ViT', vit, vits()), ('task', task, TASKS)):
        if part not in known:
            raise ValueError(f'there is no experiment {name}: the {what} "{part}" is none of {", ".join(known)}')
    return method, vit, task


def vits() -> dict[str, Path]:
    """The config of each pretrained ViT by its name here: those of segmentation, ViT-B without its letter."""
    files = sorted((CONFIGS / '_base_/backbones').glob('*.py'))
    return {file.stem.removesuffix('_b').replace('_', '-'): file for file in files}


def model(adapted: dict, vit: str, classes: int) -> dict:
    """A classifier: the ViT, and one linear layer on its pooled tokens.

    The authors pool MAE by the mean of prompts and patches, and MoCo v3 by CLS; both through the checkpoint's own
    norm, frozen.
    """
    backbone = Config.fromfile(vits()[vit]).model.backbone.to_dict()
    del backbone['out_indices']
    backbone.update(img_size=224, out_type='mean_all' if vit.startswith('mae') else 'cls_token', **adapted)
    arch = backbone.get('arch', 'base')
    width = arch['embed_dims'] if isinstance(arch, dict) else dict(small=384, base=768, large=1024)[arch]
    head = dict(
        type='LinearClsHead',
        num_classes=classes,
        in_channels=width,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        # As the authors': weights of variance 2 / classes, and a bias at which each class has a sigmoid of 0.01.
        init_cfg=dict(type='Kaiming', layer='Linear', mode='fan_out', distribution='normal', bias=-math.log(99)))
    return dict(type='ImageClassifier', backbone=backbone, neck=None, head=head)


def gated(kind: str, chosen: Hyperparameters) -> dict:
    """Prompts with a gate in each block."""
    return dict(type=kind, num_tokens=chosen.prompts, gate_init=float(chosen.gate_init))


def shallow(chosen: Hyperparameters) -> dict:
    """Prompts that enter once."""
    return dict(type='ShallowPrompt', num_tokens=chosen.prompts)


def data(task: Task, chosen: Hyperparameters) -> dict:
    """The data loaders of a task, and how it is measured.

    FGVC: a tenth of each class of the training images is held out for validation (Flowers has validation images of
    its own), as in VPT; training images are cropped and flipped. VTAB-1K: its 1000 labelled images are all trained
    on, without augmentation, so there is no validation.
    """
    source = dict(type=task.kind, data_root=task.data_root)
    load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
    if task.group == 'fgvc':
        short = dict(type='ResizeEdge', scale=256, edge='short', backend='pillow')
        training = [load, short, dict(type='RandomCrop', crop_size=224), dict(type='RandomFlip', prob=0.5), pack]
        testing = [load, short, dict(type='CenterCrop', crop_size=224), pack]
        labelled = dict(source, split='train')
        split = {part: dict(type='held_out', part=part, dataset=labelled) for part in ('train', 'val')}
        if task.kind == 'Flowers102':
            split = {part: dict(source, split=part) for part in ('train', 'val')}
    else:
        training = testing = [load, dict(type='Resize', scale=(224, 224), backend='pillow'), pack]
        source.update(num_classes=task.classes)
        split = dict(train=dict(source, split='train800val200'))
    return dict(
        train_dataloader=loader(with_pipeline(split['train'], training), chosen.batch, shuffle=True),
        test_dataloader=loader(with_pipeline(dict(source, split='test'), testing), 128),
        test_evaluator=dict(type='Accuracy', topk=(1, )),
        **(validation(with_pipeline(split['val'], testing)) if 'val' in split else {}))


def with_pipeline(dataset: dict, pipeline: list[dict]) -> dict:
    """A dataset with its transforms; they belong into the innermost one."""
    if 'dataset' in dataset:
        return dict(dataset, dataset=with_pipeline(dataset['dataset'], pipeline))
    return dict(dataset, pipeline=pipeline)


def loader(dataset: dict, batch: int, shuffle: bool = False) -> dict:
    """A data loader; a batch is that of all processes in training, and of each in evaluation."""
    return dict(
        batch_size=batch, num_workers=4, persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=shuffle), dataset=dataset)


def validation(dataset: dict) -> dict:
    """What makes a run validate on ``dataset``."""
    return dict(val_dataloader=loader(dataset, 128), val_evaluator=dict(type='Accuracy', topk=(1, )), val_cfg=dict())

"""Experiments of classification by name: ``cls_METHOD_VIT_TASK`` stands for some thousand configs.

Sources: sections 5.1, A.2 and Table 5 of arXiv 2306.05067, and what the authors' public code does where they are
silent (the initial weights of the head, the images used for training).
"""

from difflib import get_close_matches

from mmengine.config import Config

from ..models.vit import read_arch
from ..resources import CONFIGS
from .linear import PROTOCOLS, Protocol
from .methods import METHODS, options
from .tasks import TASKS, Hyperparameters, Task, hyperparameters
from .vits import VITS, settings_of_vit

# Statistics of the pixels a ViT was trained on, by channel, where its base does not say otherwise: ImageNet's.
PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
DEEP_PROMPTS = 10  # VPT-deep: so many in each block, or Table 5's number if that is smaller


def experiment(name: str) -> dict:
    """Returns the settings of an experiment beside ``_base_/schedules/sgd_100e.py`` and ``_base_/runtime_cls.py``.

    Args:
        name: ``cls_METHOD_VIT_TASK``, such as 'cls_gpt_mae_cub': one of ``METHODS``, of ``VITS`` and of ``TASKS``.

    Returns:
        ``model``, ``data_preprocessor``, the data loaders and evaluators, and the learning rate.

    Raises:
        ValueError: there is no such experiment; the message says which part of the name is unknown.
    """
    method, vit, task = parts(name)
    chosen, protocol = hyperparameters(vit, task), PROTOCOLS[VITS[vit].protocol]
    lr = (protocol.lr or chosen.lr) if METHODS[method].frozen else protocol.full_lr
    return dict(
        model=model(method_options(method, chosen), vit, TASKS[task].classes),
        data_preprocessor=dict(
            num_classes=TASKS[task].classes, to_rgb=True,
            **{name: settings_of_vit(vit).get(name, usual) for name, usual in PIXELS.items()}),
        optim_wrapper=dict(optimizer=dict(protocol.optimizer, lr=lr)),
        **data(TASKS[task], chosen, protocol))


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
    """Returns the method, the ViT and the task in the name of an experiment.

    Raises:
        ValueError: one of them is unknown.
    """
    start, method, vit, task = [*name.split('_', 3), '', '', ''][:4]
    if start != 'cls' or not task:
        raise ValueError(f'{name} is not of the form cls_METHOD_VIT_TASK, such as cls_gpt_mae_cub')
    for what, part, known in (('method', method, METHODS), ('ViT', vit, VITS), ('task', task, TASKS)):
        if part not in known:
            near = get_close_matches(part, known, 1)
            raise ValueError(f'there is no experiment {name}: the {what} "{part}" is none of {", ".join(known)}' +
                             (f'. Did you mean {name.replace(f"_{part}", f"_{near[0]}", 1)}?' if near else ''))
    return method, vit, task


def method_options(method: str, chosen: Hyperparameters) -> dict:
    """Returns the backbone's settings of a method with the hyperparameters of a task."""
    prompts = min(chosen.prompts, DEEP_PROMPTS) if METHODS[method].each_block else chosen.prompts
    return options(method, prompts, chosen.gate_init)


def model(adapted: dict, vit: str, classes: int) -> dict:
    """Returns a classifier: the ViT, and one linear layer on its pooled tokens, by the protocol of the ViT.

    Tokens are pooled after the checkpoint's own norm, which is frozen, as the authors do.

    Args:
        adapted: The backbone's settings of the method.
        vit: One of ``VITS``.
        classes: How many there are.
    """
    settings = {name: value for name, value in settings_of_vit(vit).items() if name not in PIXELS}
    backbone = dict(settings, type='GatedPromptViT', img_size=224, frozen=True, out_type=VITS[vit].out_type)
    backbone.update(adapted)
    return classifier(backbone, classes, PROTOCOLS[VITS[vit].protocol])


def classifier(backbone: dict, classes: int, protocol: Protocol) -> dict:
    """Returns a classifier on a backbone: one linear layer, by a protocol.

    Args:
        backbone: Settings of the ViT, which returns one vector for each image.
        classes: How many there are.
        protocol: How the layer starts, and whether its input is normalised.
    """
    width = read_arch(backbone.get('arch', 'base'))['embed_dims']
    head = dict(
        type='LinearClsHead',
        num_classes=classes,
        in_channels=width,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        init_cfg=protocol.init)
    neck = dict(type='ClsBatchNormNeck', input_features=width) if protocol.normalised else None
    return dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)


def data(task: Task, chosen: Hyperparameters, protocol: Protocol) -> dict:
    """Returns the data loaders of a task, and how it is measured.

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
        train_dataloader=dict(
            loader(with_pipeline(split['train'], training), chosen.batch, shuffle=True),
            # A last batch of one image has no variance.
            **(dict(drop_last=True) if protocol.normalised else {})),
        test_dataloader=loader(with_pipeline(dict(source, split='test'), testing), 128),
        test_evaluator=dict(type='Accuracy', topk=(1, )),
        **(validation(with_pipeline(split['val'], testing)) if 'val' in split else {}))


def with_pipeline(dataset: dict, pipeline: list[dict]) -> dict:
    """Returns a dataset with its transforms, which belong to the innermost one."""
    if 'dataset' in dataset:
        return dict(dataset, dataset=with_pipeline(dataset['dataset'], pipeline))
    return dict(dataset, pipeline=pipeline)


def loader(dataset: dict, batch: int, shuffle: bool = False) -> dict:
    """Returns a data loader; the batch is that of all processes together in training, and of each in evaluation."""
    return dict(
        batch_size=batch, num_workers=4, persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=shuffle), dataset=dataset)


def validation(dataset: dict) -> dict:
    """Returns the settings that make a run validate on ``dataset``."""
    return dict(val_dataloader=loader(dataset, 128), val_evaluator=dict(type='Accuracy', topk=(1, )), val_cfg=dict())

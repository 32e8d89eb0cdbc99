"""Writes the config of an adaptation: an ordinary one, flat, with comments, to be read and changed."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from .. import __version__
from ..files import replacing
from ..recipes import heads
from ..recipes.experiment import PIXELS, classifier
from ..recipes.linear import PROTOCOLS
from ..recipes.losses import LOSSES, class_weights, loss_settings
from ..recipes.methods import METHODS, options
from ..recipes.vits import VITS, settings_of_vit
from ..resources import CONFIGS, command_of
from .look import NAMES, OwnData
from .options import Request
from .plan import Setup
from .python import Expression, assignment

PROMPTS, DEEP_PROMPTS = 10, 4  # fewer than the paper's 100, which short runs on few images do not need
# Gates begin at 0.007, where random prompts do no harm, and open within some hundred steps. On a third of CamVid's
# validation images, 60 steps of a ViT-S/14 with a linear head reach an mIoU of 41.1 so, of 38.7 with gates that begin
# at 0.12, and of 39.9 without prompts (one seed). From the paper's prior of -10 so few steps do not move them.
GATE_INIT = 5.
RATE = 1e-3  # AdamW's
# Linear layers take larger steps. Measured on frozen features of a ViT-S/14, on validation images that were kept from
# training: on CamVid 60 steps reach an mIoU of 22.6 at 0.001, 37.6 at 0.01 and 38.4 at 0.03 (600 steps: 40.3, 45.0 and
# 44.9), and 120 steps of a head on four blocks 48.8 at 0.01 and 52.9 at 0.03; on 17 flowers 100 steps reach an accuracy
# of 88.5 at 0.001, 94.0 at 0.003 and 94.0 at 0.01.
LINEAR_FACTOR, CLASSIFIER_FACTOR = 30., 3.
LINEAR_HEADS = ('linear', 'linear_4')
# By what a method has: names of parameters, and their share of the rate.
FACTORS = dict(prompt=('prompt.tokens', 2.), gates=('gate_prior', 20.), temperature=('temperature', 5.))
FULL_FACTOR = 0.01  # of the rate of a head, for a ViT that is trained as a whole
WEIGHT_DECAY = 0.01
MADE_BY = '# Made by mmseg_gpt'


def write_config(path: Path, data: OwnData, plan: Setup, asked: Request, command: str) -> None:
    """Writes a config that ``train``, ``test`` and ``predict`` take.

    Args:
        path: The file.
        data: What was found.
        plan: What follows from it.
        asked: What was asked for.
        command: The command that makes it, for its first lines.
    """
    parts = segmentation(path, data, plan, asked) if data.task == 'segmentation' else classification(
        path, data, plan, asked)
    text = '\n'.join([*heading(path, data, command), *parts]) + '\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding='utf-8')


def heading(path: Path, data: OwnData, command: str) -> Iterator[str]:
    """Yields the first lines of a config: whence it is, and what it is for."""
    counts = ', '.join(f'{number} {NAMES[split]}' for split, number in data.counts.items())
    yield f'# {data.task.capitalize()} of {data.root}: {len(data.classes)} classes, {counts} images.'
    yield f'{MADE_BY} {__version__}: {command}'
    yield '# It is an ordinary config, to be changed: after a change, train it into another folder with'
    yield f'#   {command_of("train", path, "--work-dir", "DIR")}'
    yield f'#   {command_of("test", path, "CHECKPOINT")}'


def segmentation(path: Path, data: OwnData, plan: Setup, asked: Request) -> Iterator[str]:
    """Yields the lines of a config of segmentation."""
    yield from beginning(path, data, 'mmseg')
    reader, size, crop = data.reader, plan.size, plan.crop
    ends = dict(type='PackSegInputs')
    scale = (10 * size, size)
    colour = [dict(type='PhotoMetricDistortion')] if data.channels == 3 else []
    flips = [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)]
    labels = dict(type='LoadAnnotations')
    yield said(plan, 'size', 'crop', 'windows')
    yield assignment('train_pipeline', [
        reader, labels, dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
        dict(type='HistogramRandomCrop', crop_size=(crop, crop), cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
        *colour, ends])
    yield '# LoadAnnotations comes after Resize, because the score is computed at the original size.'
    yield assignment('test_pipeline', [reader, dict(type='Resize', scale=scale, keep_ratio=True), labels, ends])
    scales = [dict(type='Resize', scale=(10 * side, side), keep_ratio=True) for side in (
        round(size * ratio) for ratio in (0.75, 1., 1.25))]
    yield assignment('tta_pipeline', [reader, dict(type='TestTimeAug', transforms=[scales, flips, [labels], [ends]])])
    yield assignment('tta_model', dict(type='LeanSegTTAModel'))
    yield from loaders(data, plan, dict(type='ListedPairs'), 'csv', test_batch=1)
    yield assignment('val_evaluator', dict(type='PerClassIoUMetric', iou_metrics=['mIoU']))
    yield 'test_evaluator = val_evaluator'
    yield from comment(f'The model: {VITS[asked.vit].title}, adapted by {METHODS[asked.method].title}, with the head '
                       f'{plan.head}; {LOSSES[asked.loss or "ce"]}. ' + sentences(plan, 'method'))
    yield assignment('model', segmentor(data, plan, asked))
    yield from training(plan, asked, 'mIoU', 'runtime_seg.py')
    yield 'del dataset  # not a setting of its own'


def classification(path: Path, data: OwnData, plan: Setup, asked: Request) -> Iterator[str]:
    """Yields the lines of a config of classification."""
    yield from beginning(path, data, 'mmpretrain')
    reader, ends = data.reader, dict(type='PackInputs')
    yield said(plan, 'size', 'crop')
    yield assignment('train_pipeline', [
        reader, dict(type='RandomResizedCrop', scale=plan.crop, crop_ratio_range=(0.5, 1.)),
        dict(type='RandomFlip', prob=0.5), ends])
    yield assignment('test_pipeline', [reader, dict(type='ResizeEdge', scale=plan.size, edge='short'),
                                       dict(type='CenterCrop', crop_size=plan.crop), ends])
    yield from loaders(data, plan, dict(type='CustomDataset'), 'txt', test_batch=plan.batch)
    yield assignment('val_evaluator', dict(type='Accuracy', topk=(1, )))
    yield 'test_evaluator = val_evaluator'
    yield from comment(f'The model: {VITS[asked.vit].title}, adapted by {METHODS[asked.method].title}, and one linear '
                       'layer. Its input is normalised over the batch, and its weights begin near 0, so that the first '
                       'steps are calm whatever the size of the features.')
    backbone = backbone_of(data, asked) | dict(img_size=plan.crop, out_type=VITS[asked.vit].out_type)
    yield assignment('model', classifier(backbone, len(data.classes), PROTOCOLS['normalised']))
    mean, std = pixels_of(data, asked)
    yield assignment('data_preprocessor', dict(num_classes=len(data.classes), mean=mean, std=std,
                                               to_rgb=data.channels == 3))
    yield from training(plan, asked, 'accuracy/top1', 'runtime_cls.py')
    yield 'del dataset  # not a setting of its own'


def beginning(path: Path, data: OwnData, scope: str) -> Iterator[str]:
    """Yields what a config begins with: its modules, its place and its classes."""
    own = 'mmseg_gpt.segmentation' if scope == 'mmseg' else 'mmseg_gpt.classification.datasets'
    yield assignment('default_scope', scope)
    yield assignment('custom_imports', dict(imports=['mmseg_gpt', own]))
    yield assignment('work_dir', str(path.parent))
    yield ''
    yield '# The data: lists of images' + (
        ', and of masks rewritten as class numbers from 0, where 255 is ignored.' if scope == 'mmseg' else
        ' and their class numbers.')
    yield assignment('metainfo', dict(classes=data.classes, palette=[list(colour) for colour in data.palette]))
    yield assignment('data_root', str(data.folder))


def loaders(data: OwnData, plan: Setup, dataset: dict, suffix: str, test_batch: int) -> Iterator[str]:
    """Yields the datasets and their loaders."""
    yield assignment('dataset', dict(dataset, data_root=Expression('data_root'), metainfo=Expression('metainfo')))
    yield said(plan, 'batch')
    splits = dict(train='train', val='val', test=data.measured)
    for loader, split in splits.items():
        pipeline = 'train' if loader == 'train' else 'test'
        sampler = dict(type='InfiniteSampler', shuffle=True) if loader == 'train' else dict(
            type='DefaultSampler', shuffle=False)
        yield assignment(f'{loader}_dataloader', dict(
            batch_size=plan.batch if loader == 'train' else test_batch, num_workers=plan.workers,
            persistent_workers=plan.workers > 0, sampler=sampler, dataset=Expression(
                f"dict(dataset, ann_file='{split}.{suffix}', pipeline={pipeline}_pipeline)")))


def segmentor(data: OwnData, plan: Setup, asked: Request) -> dict:
    """Returns the settings of the segmentor, from which widths follow; see :mod:`mmseg_gpt.models.complete`."""
    mean, std = pixels_of(data, asked)
    model = heads.segmentor(plan.head, backbone_of(data, asked), len(data.classes), plan.crop, dict(
        mean=mean, std=std, bgr_to_rgb=data.channels == 3, test_cfg=dict(size_divisor=patch_of(asked))), plan.whole)
    pixels, weights = data.pixels['train'], None
    if asked.class_weights:
        weights = class_weights(pixels.tolist())
    for name in ('decode_head', 'auxiliary_head'):
        for head in heads_in(model.get(name)):
            loss = head['loss_decode'][0] if isinstance(head['loss_decode'], list) else head['loss_decode']
            head['loss_decode'] = loss_settings(asked.loss or 'ce', weights, loss.get('loss_weight', 1.))
    return model


def heads_in(value: object) -> list[dict]:
    """Returns the settings of heads, of which there may be none, one or several."""
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else []


def backbone_of(data: OwnData, asked: Request) -> dict:
    """Returns the settings of the ViT and of what adapts it."""
    vit = {name: value for name, value in settings_of_vit(asked.vit).items() if name not in PIXELS}
    if asked.weights:
        vit['init_cfg'] = dict(type='PretrainedViT', checkpoint=asked.weights)
    prompts = DEEP_PROMPTS if METHODS[asked.method].each_block else PROMPTS
    settings = dict(type='GatedPromptViT', frozen=True) | vit | options(asked.method, prompts, GATE_INIT)
    return settings if data.channels == 3 else dict(settings, in_channels=data.channels)


def patch_of(asked: Request) -> int:
    """Returns the side of the ViT's patches in pixels."""
    return settings_of_vit(asked.vit).get('patch_size', 16)


def pixels_of(data: OwnData, asked: Request) -> tuple[list[float], list[float]]:
    """Returns the mean and the deviation by which pixels are normalised; more channels than 3 have them in turn."""
    own = settings_of_vit(asked.vit)
    return tuple([own.get(name, PIXELS[name])[i % 3] for i in range(data.channels)] for name in ('mean', 'std'))


def training(plan: Setup, asked: Request, score: str, runtime: str) -> Iterator[str]:
    """Yields the optimizer, the schedule, and what every run has."""
    yield from comment('AdamW instead of the paper\'s SGD, because this run is short. ' + sentences(
        plan, 'schedule', 'validation', 'time'))
    yield assignment('optim_wrapper', optimizer_of(plan, asked))
    warm_up = max(plan.iterations // 20, 1)
    yield assignment('param_scheduler', [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=warm_up, by_epoch=False),
        dict(type='PolyLR', eta_min=0., power=0.9, begin=warm_up, end=plan.iterations, by_epoch=False)])
    yield assignment('train_cfg', dict(type='IterBasedTrainLoop', max_iters=plan.iterations,
                                       val_interval=plan.interval))
    yield assignment('val_cfg', dict(type='ValLoop'))
    yield assignment('test_cfg', dict(type='TestLoop'))
    yield ''
    yield '# What every run has. The best checkpoint of the validations is kept beside the newest.'
    base = Config.fromfile(CONFIGS / '_base_' / runtime).to_dict()
    hooks = dict(base['default_hooks'])
    hooks['logger'] = dict(hooks['logger'], interval=min(50, max(plan.iterations // 20, 1)), log_metric_by_epoch=False)
    hooks['checkpoint'] = dict(type='AtomicCheckpointHook', by_epoch=False, interval=plan.interval, max_keep_ckpts=1,
                               save_best=score, rule='greater')
    base['visualizer'].pop('name', None)  # two runs of a process need two names
    custom = [dict(type='ParameterTableHook'), dict(type='TrackingHook')]
    own = dict(default_hooks=hooks, custom_hooks=custom, randomness=dict(seed=asked.seed),
               log_processor=dict(by_epoch=False))
    for name in ('env_cfg', 'visualizer', 'log_level', 'randomness', 'default_hooks', 'custom_hooks', 'log_processor'):
        yield assignment(name, own.get(name, base.get(name)))


def optimizer_of(plan: Setup, asked: Request) -> dict:
    """Returns the settings of the optimizer and its precision."""
    factors = {'head': dict(lr_mult=LINEAR_FACTOR)} if plan.head in LINEAR_HEADS else {} if plan.head else {
        'head': dict(lr_mult=CLASSIFIER_FACTOR)}
    method = METHODS[asked.method]
    if method.frozen:
        factors |= {name: dict(lr_mult=factor, decay_mult=0.) for part, (name, factor) in FACTORS.items()
                    if getattr(method, part)}
    else:
        factors['backbone'] = dict(lr_mult=FULL_FACTOR)
    precision = dict(type='OptimWrapper') if not asked.amp else dict(type='Bf16OptimWrapper') if (
        asked.amp == 'bf16') else dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')
    return dict(precision, constructor='TrainedPartsConstructor',
                optimizer=dict(type='AdamW', lr=RATE, weight_decay=WEIGHT_DECAY),
                paramwise_cfg=dict(custom_keys=factors))


def said(plan: Setup, *names: str) -> str:
    """Returns the reasons of parts of a plan as a comment."""
    return '\n'.join(comment(sentences(plan, *names)))


def sentences(plan: Setup, *names: str) -> str:
    """Returns the reasons of parts of a plan, a sentence each."""
    reasons = [plan.reasons[name] for name in names if name in plan.reasons]
    return ' '.join(f'{reason[0].upper()}{reason[1:]}.' for reason in reasons)


def comment(text: str) -> Iterator[str]:
    """Yields a blank line and the lines of a comment."""
    yield ''
    line = '#'
    for word in text.split():
        if len(line) + len(word) > 110:
            yield line
            line = '#'
        line += f' {word}'
    yield line

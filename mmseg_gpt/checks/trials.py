"""Checks that build or try a part of a run in small: what fails here would have failed after the run has begun."""

import copy
import sys
import warnings
from collections.abc import Iterator
from inspect import getattr_static
from itertools import islice

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..datasets.guarded import SampleError
from ..datasets.introspect import transforms_of
from ..datasets.pairs import error_line
from ..resources import command_of
from ..settings import look_up, type_name
from .labels import iou_metrics
from .pairs import class_of, processes

# Other constructors look for parts of the real model.
PLAIN_CONSTRUCTORS = ('DefaultOptimWrapperConstructor', 'TrainedPartsConstructor')
WITHOUT_LABELS = (f'To predict without label maps, use {command_of("predict")}, or set test_evaluator to '
                  "dict(type='IoUMetric', format_only=True, output_dir=DIR)")
NO_LABELS = f'its samples have no label maps: add LoadAnnotations to the pipeline. {WITHOUT_LABELS}'
BATCHES, IMAGES = 2, 3  # how many batches of a loader are tried, and how many images of each


def wrong_optimizer(cfg: Config) -> list[str]:
    """Builds the optimizer and its schedules for a single weight, and says why one cannot be built.

    Args:
        cfg: The whole config. Several optimizers, and one that is built already, are left out.
    """
    settings, schedulers = cfg.get('optim_wrapper'), cfg.get('param_scheduler') or []
    if not isinstance(settings, dict) or not isinstance(settings.get('optimizer'), dict):
        return []
    if type_name(dict(type=settings.get('constructor')), PLAIN_CONSTRUCTORS[0]) not in PLAIN_CONSTRUCTORS:
        return []
    if type_name(settings) == 'AmpOptimWrapper' and not torch.cuda.is_available():
        return []  # which is said elsewhere
    try:
        wrapper = build_optim_wrapper(nn.Linear(1, 1), copy.deepcopy(settings))
    except Exception as error:
        return [f'optim_wrapper cannot be built: {error_line(error)}']
    problems = []
    for i, scheduler in enumerate([schedulers] if isinstance(schedulers, dict) else schedulers):
        if not isinstance(scheduler, dict) or 'type' not in scheduler:
            return []  # of several optimizers
        try:
            PARAM_SCHEDULERS.build(dict({'end': 10**9}, **copy.deepcopy(scheduler)),
                                   default_args=dict(optimizer=wrapper, epoch_length=1000))
        except Exception as error:
            problems.append(f'param_scheduler.{i} ({type_name(scheduler)}) cannot be built: {error_line(error)}')
    return problems


def wrong_losses(path: str, head: dict) -> list[str]:
    """Tries the losses of a head of mmsegmentation on a few pixels, some of them ignored.

    Args:
        path: Where the head stands in the config.
        head: Its settings.
    """
    decode_head = sys.modules.get('mmseg.models.decode_heads.decode_head')
    kind = class_of(MODELS, head)
    if decode_head is None or kind is None or getattr_static(kind, 'loss_by_feat', None) is not vars(
            decode_head.BaseDecodeHead)['loss_by_feat']:
        return []  # a head that gives its losses something else
    losses = head.get('loss_decode') or []
    several = isinstance(losses, (list, tuple))
    problems = []
    for i, loss in enumerate(losses if several else [losses]):
        problem = loss_problem(loss, head) if isinstance(loss, dict) else None
        problems += [f'{path}.loss_decode{f".{i}" if several else ""} {problem}'] if problem else []
    return problems


def loss_problem(settings: dict, head: dict) -> str | None:
    """Says why a loss cannot be computed for the classes of a head, or would teach nothing."""
    channels = head.get('out_channels') or head['num_classes']
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the run's own loss warns of the same
            loss = MODELS.build(copy.deepcopy(settings))
    except Exception as error:
        return f'cannot be built: {error_line(error)}'
    for name in ('class_weight', 'alpha'):
        weights = getattr(loss, name, None)
        if weights is not None and hasattr(weights, '__len__') and len(weights) != channels:
            return (f'has {len(weights)} numbers in {name}, but {"out_channels" if head.get("out_channels") else ""}'
                    f'{"" if head.get("out_channels") else "num_classes"} of the head is {channels}: give one for each')
    ignored, generator = head.get('ignore_index', 255), torch.Generator().manual_seed(0)
    labels = torch.randint(head['num_classes'], (2, 8, 8), generator=generator)
    labels[:, :2] = ignored
    scores = torch.randn(2, channels, 8, 8, generator=generator).requires_grad_()
    try:
        loss(scores, labels, weight=None, ignore_index=ignored).sum().backward()
    except Exception as error:
        return (f'({type_name(settings)}) fails for {head["num_classes"]} classes, {channels} channels and ignored '
                f'pixels: {error_line(error)}')
    if channels == 1 and not scores.grad.any():
        return (f'({type_name(settings)}) is 0 whatever the model says, because the head has one channel: set '
                'use_sigmoid=True, or count the background as a class')
    return None


def wrong_batches(cfg: Config, name: str, dataset: object) -> list[str]:
    """Builds a data loader and gives the model's preprocessor a few of its images, as the run will.

    Args:
        cfg: The whole config.
        name: The data loader's.
        dataset: Its dataset.
    """
    if not cfg.get(f'{name.partition("_")[0]}_cfg'):
        return []  # not the config of a run
    try:
        loader = Runner.build_dataloader(dict(cfg[name], dataset=Uncopied(dataset)), seed=0)
    except Exception as error:
        return [f'it cannot be built: {error_line(error)}']
    share = (loader.batch_size or 1) // (processes() if name == 'train_dataloader' else 1)
    if loader.drop_last and len(dataset) < share:
        return [f'drop_last=True leaves no batch, as there are {len(dataset)} samples and batch_size is {share}']
    if name == 'train_dataloader' and (problem := lonely_image(cfg, loader, share)):
        return [problem]
    if any(type(transform).__name__ == 'TestTimeAug' for transform in transforms_of(dataset)):
        return []
    try:
        samples = list(first_samples(loader))
    except SampleError as error:
        return [str(error)]
    except Exception as error:
        return [f'an image cannot be loaded: {error_line(error)}']
    return [problem for batch in samples if (problem := batch_problem(cfg, name, loader, batch))][:1]


# Heads that pool an image into one pixel, whose normalisation over a batch needs two.
POOLING_HEADS = ('PSPHead', 'UPerHead', 'ASPPHead', 'DepthwiseSeparableASPPHead')


def lonely_image(cfg: Config, loader: DataLoader, share: int) -> str | None:
    """Says that a process gets a batch of one image, for which a batch normalisation has no statistics.

    Args:
        cfg: The whole config.
        loader: The data loader of the training.
        share: How many images of a whole batch a process gets.
    """
    said = needs_several(cfg)
    if said is None:
        return None
    if share == 1:
        return f'batch_size gives each process one image. {said}2 images or more for each process'
    endless = isinstance(loader.sampler, InfiniteSampler)
    if not endless and not loader.drop_last and processes() == 1 and len(loader.sampler) % share == 1:
        return f'the last batch of an epoch of {len(loader.sampler)} has one image. {said}drop_last=True'
    return None


def needs_several(cfg: Config) -> str | None:
    """Says which batch normalisation of a model sees one number of each image, as the beginning of a remedy."""
    if type_name(look_up(cfg, 'model.neck')) == 'ClsBatchNormNeck':
        return 'The batch norm of ClsBatchNormNeck cannot be computed from a single one: use '
    head = (cfg.get('model') or {}).get('decode_head')
    norm = type_name(look_up(head, 'norm_cfg')) if isinstance(head, dict) else ''
    across = norm == 'SyncBN' and processes() > 1
    kind = type_name(head).removeprefix('Lean')
    if kind not in POOLING_HEADS or norm not in ('BN', 'SyncBN') or across:
        return None
    if kind in POOLING_HEADS[:2] and 1 not in head.get('pool_scales', (1, 2, 3, 6)):
        return None
    return (f'{type_name(head)} pools each image into one pixel, and its {norm} cannot be computed from a single one: '
            'use GN, or ')


def first_samples(loader: DataLoader) -> Iterator[list[dict]]:
    """Yields the samples of parts of the first batches of a data loader."""
    for indices in islice(loader.batch_sampler, BATCHES):
        yield [loader.dataset[index] for index in islice(indices, IMAGES)]


def batch_problem(cfg: Config, name: str, loader: DataLoader, samples: list[dict]) -> str | None:
    """Says why the model's preprocessor cannot take samples as one batch, or what they lack."""
    model = cfg.get('model') or {}
    model = model.get('module', model)
    settings = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if not isinstance(settings, dict) or not all(isinstance(sample, dict) and 'inputs' in sample for sample in samples):
        return None
    training = name == 'train_dataloader'
    alone = type_name(model) == 'LeanEncoderDecoder' and not training  # which divides such batches
    if cfg.get('default_scope') == 'mmpretrain':
        settings = {'type': 'ClsDataPreprocessor', **settings}  # as mmpretrain's classifiers fill it in
    try:
        preprocess = MODELS.build(copy.deepcopy(settings))
        for batch in [[sample] for sample in samples] if alone else [samples]:
            preprocess(loader.collate_fn(batch), training)
    except Exception as error:
        sizes = sorted({tuple(sample['inputs'].shape[-2:]) for sample in samples})
        if len(sizes) > 1:
            return (f'batch_size is {loader.batch_size}, but images come out of the pipeline in different sizes, '
                    f'{" and ".join(f"{h}x{w}" for h, w in sizes[:3])}: {error_line(error)}. ' +
                    ('Add a RandomCrop to the pipeline, or data_preprocessor.size' if training else
                     f'Set {name}.batch_size=1'))
        return f'its images cannot be made a batch: {error_line(error)}'
    if 'decode_head' in model and (training or measures_iou(cfg, name)) and not all(
            'gt_sem_seg' in sample['data_samples'] for sample in samples):
        return NO_LABELS if measures_iou(cfg, name) else NO_LABELS.removesuffix(f'. {WITHOUT_LABELS}')
    return None


def measures_iou(cfg: Config, name: str) -> bool:
    """Returns whether the evaluator of a data loader compares predictions with label maps."""
    return bool(iou_metrics(cfg, f'{name.partition("_")[0]}_evaluator'))


class Uncopied:
    """A dataset that is not copied where its data loader is built.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: object) -> None:
        self.dataset = dataset

    def __deepcopy__(self, memo: dict) -> 'Uncopied':
        return self

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.dataset[index]

    def __getattr__(self, name: str) -> object:
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

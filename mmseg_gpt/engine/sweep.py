"""A sweep of heads: from a config and a grid to one run of them all, and back to the config of each."""

import copy
import itertools
import re
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import EVALUATOR, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope

from ..checks.before import refuse
from ..checks.data import wrong_model
from ..checks.trials import wrong_optimizer
from ..checks.values import wrong_numbers
from ..models.sweep import SweepModel, SweptSamples, sharable
from ..settings import changed, look_up, type_name
from .config import parse_settings, with_options

SHORT = dict(lr='optim_wrapper.optimizer.lr', weight_decay='optim_wrapper.optimizer.weight_decay')
# What heads may differ in. The ViT, the images and the schedule are those of all.
MAY_DIFFER = ('model.decode_head.', 'model.auxiliary_head.', 'model.head.', 'optim_wrapper.optimizer.',
              'optim_wrapper.paramwise_cfg.', 'optim_wrapper.clip_grad.')
# Hooks and schedules that would decide by the scores or the weights of all heads together.
NOT_FOR_MANY = ('EMAHook', 'EarlyStoppingHook', 'ReduceOnPlateauLR', 'ReduceOnPlateauMomentum',
                'ReduceOnPlateauParamScheduler')


def swept(cfg: Config, grid: Sequence[str], name: str) -> Config:
    """Returns a config that trains a head for each combination of values, all on the features of one ViT.

    Args:
        cfg: A whole config in which only heads are trained.
        grid: ``KEY=VALUE,VALUE,...`` for each setting in which heads differ: a dotted path that begins with one of
            ``MAY_DIFFER``, or ``lr`` or ``weight_decay`` for those of the optimizer.
        name: What messages call the config.

    Raises:
        SystemExit: the config trains more than heads or does not validate, a setting cannot be swept, or has a value
            that cannot be used; the message says which.
    """
    heads = combinations(grid)
    problems = cannot_be_swept(cfg)
    for changes in () if problems else heads.values():
        alone = with_options(copy.deepcopy(cfg), changes, name)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            problems += wrong_numbers(alone, ()) or wrong_optimizer(alone) + wrong_model(alone)
    refuse([], [f'--sweep-heads: {problem}' for problem in dict.fromkeys(problems)])
    cfg = copy.deepcopy(cfg)
    cfg.model = dict(type='SweepModel', model=cfg.model, heads=part_of(heads, 'model.'))
    cfg.optim_wrapper = dict(
        cfg.optim_wrapper, constructor='SweepConstructor', heads=part_of(heads, 'optim_wrapper.'),
        constructor_of_each=cfg.optim_wrapper.get('constructor', 'DefaultOptimWrapperConstructor'))
    cfg.val_evaluator = dict(type='SweepEvaluator', metrics=cfg.val_evaluator, names=list(heads))
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='SweepHook', settings=heads)]
    return cfg


def config_of(cfg: Config, name: str) -> Config:
    """Returns the config that trains one head of a :func:`swept` config alone."""
    alone = copy.deepcopy(cfg)
    hook = next(hook for hook in alone.custom_hooks if type_name(hook) == 'SweepHook')
    alone.custom_hooks = [each for each in alone.custom_hooks if each is not hook]
    alone.model = alone.model.model
    constructor = alone.optim_wrapper.pop('constructor_of_each')
    del alone.optim_wrapper['heads']
    alone.optim_wrapper.constructor = constructor
    alone.val_evaluator = alone.val_evaluator.metrics
    alone.merge_from_dict(dict(hook.settings[name]))
    alone.update(resume=False, load_from=None)
    return alone


def combinations(grid: Sequence[str]) -> dict[str, dict[str, object]]:
    """Returns each combination of values of a grid, by dotted path, under a name that says it.

    Raises:
        SystemExit: a setting cannot be swept, or there are fewer than two combinations.
    """
    values = {}
    for key, given in parse_settings(grid).items():
        path = SHORT.get(key, key)
        if not path.startswith(MAY_DIFFER):
            raise SystemExit(f'--sweep-heads: {key} is not a setting in which heads can differ: those are lr, '
                             f'weight_decay, and what begins with {", ".join(MAY_DIFFER)}')
        values[path] = given if isinstance(given, list) else [given]
    heads = {}
    for chosen in itertools.product(*values.values()):
        changes = dict(zip(values, chosen))
        said = '__'.join(f'{path.rpartition(".")[2]}_{value}' for path, value in changes.items())
        heads[re.sub(r'[^\w.-]', '_', said)] = changes  # a tracker takes no other characters
    if not len(heads) == len(list(itertools.product(*values.values()))) > 1:
        raise SystemExit('--sweep-heads needs two values or more, which differ, as in lr=1e-4,1e-3; got '
                         f'{" ".join(grid)}')
    return heads


def part_of(heads: dict[str, dict[str, object]], section: str) -> dict[str, dict[str, object]]:
    """Returns the changes in a section of the config, by paths below it."""
    return {name: {path.removeprefix(section): value for path, value in changes.items() if path.startswith(section)}
            for name, changes in heads.items()}


def cannot_be_swept(cfg: Config) -> list[str]:
    """Says why the heads of a config cannot be trained side by side."""
    if type_name(look_up(cfg, 'model.backbone')) == 'BiasTunedViT' or look_up(cfg, 'model.backbone.frozen') is False:
        return ['this config trains the ViT itself, and heads can only be swept on a ViT that trains nothing']
    problems = []
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')), torch.device('meta'):
            sharable(MODELS.build(copy.deepcopy(cfg.model.backbone)))
    except (KeyError, TypeError, ValueError) as error:
        problems.append(str(error.args[0]))
    if not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        problems.append('heads are compared by validation, and this config does not validate (VTAB-1K does with '
                        '--search-split)')
    if cfg.get('launcher', 'none') != 'none':
        problems.append('heads are swept in one process: start it without torchrun')
    if not isinstance(look_up(cfg, 'optim_wrapper.optimizer'), dict):
        problems.append('optim_wrapper has no single optimizer, of which each head would get its own')
    schedulers = cfg.get('param_scheduler') or []
    used = [*(cfg.get('custom_hooks') or []), *(schedulers if isinstance(schedulers, list) else [schedulers])]
    return problems + [f'{kind} cannot decide for several heads: leave it out' for kind in map(type_name, used)
                       if kind in NOT_FOR_MANY]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SweepConstructor:
    """Builds an optimizer for each member of a SweepModel, as if it were alone.

    Args:
        optim_wrapper_cfg: Settings of one, with ``heads``, what differs for each member by its name, and
            ``constructor_of_each``.
        paramwise_cfg: Settings of single parameters, as in MMEngine.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        settings = dict(optim_wrapper_cfg)
        self.heads, constructor = settings.pop('heads'), settings.pop('constructor_of_each')
        self.settings = dict(settings, constructor=constructor, paramwise_cfg=paramwise_cfg)

    def __call__(self, model: SweepModel) -> OptimWrapperDict:
        return OptimWrapperDict(**{name: build_optim_wrapper(model.member(name), changed(self.settings, changes))
                                   for name, changes in self.heads.items()})


@EVALUATOR.register_module()
class SweepEvaluator(Evaluator):
    """Evaluates each member of a SweepModel with metrics of its own.

    Args:
        metrics: Settings of the metrics, or of the only one.
        names: Names of the members.

    Attributes:
        results: Metrics by name of the member, after ``evaluate``; diverged ones have none.
    """

    def __init__(self, metrics: dict | list[dict], names: list[str]) -> None:
        self.each = {name: Evaluator(copy.deepcopy(metrics)) for name in names}
        self.results: dict[str, dict[str, float]] = {}
        self.seen: set[str] = set()
        super().__init__([])

    @property
    def dataset_meta(self) -> dict | None:
        """What the dataset says about itself, such as its classes."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        for evaluator in self.each.values():
            evaluator.dataset_meta = meta

    def process(self, data_samples: SweptSamples, data_batch: object = None) -> None:
        """Gives the metrics of each member its predictions."""
        for name, samples in data_samples.by_name.items():
            self.each[name].process(samples, data_batch)
            self.seen.add(name)

    def evaluate(self, size: int) -> dict[str, float]:
        """Returns the metrics of all members as ``NAME/metric``; those of the best one also under their own names."""
        self.results = {}
        for name in (name for name in self.each if name in self.seen):
            print_log(f'head {name}:', logger='current')  # above the tables that metrics print
            self.results[name] = self.each[name].evaluate(size)
        self.seen.clear()
        named = {f'{name}/{key}': value for name, metrics in self.results.items() for key, value in metrics.items()}
        return named | self.results.get(best_of(self.results), {})


def best_of(results: dict[str, dict[str, float]]) -> str | None:
    """Returns the member with the highest score, the first of equal ones; None where there is none."""
    return max(results, key=lambda name: score(results[name]), default=None)


def score(metrics: dict[str, float]) -> float:
    """Returns the metric by which heads are compared: mIoU, accuracy of the first guess, or the first that there is."""
    return metrics[score_name(metrics)]


def score_name(metrics: dict[str, float]) -> str:
    """Returns the name of the metric by which heads are compared."""
    return next((name for name in ('mIoU', 'accuracy/top1') if name in metrics), next(iter(metrics)))

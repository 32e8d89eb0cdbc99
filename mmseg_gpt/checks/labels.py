"""Checks of what label maps mean: the ignored number, which several settings must share, and the classes that occur."""

import numpy as np
from mmengine.config import Config

from ..datasets.pairs import LabelRule
from ..settings import look_up, type_name
from ..wording import listed

IOU_METRICS = ('IoUMetric', 'PerClassIoUMetric')


def wrong_ignored(cfg: Config, loader: str, rule: LabelRule, heads: dict[str, dict]) -> list[str]:
    """Says that dataset, heads and metric do not take the same number for ignored pixels.

    A metric that takes another one counts what is predicted there as wrong, and nobody would be told.

    Args:
        cfg: The whole config.
        loader: The data loader's name, as ``val_dataloader``.
        rule: What the label maps of its dataset mean.
        heads: The settings of the heads, by their dotted paths.
    """
    said = {f'{loader}.dataset.ignore_index': rule.ignore_index}
    said |= {f'{path}.ignore_index': head.get('ignore_index', 255) for path, head in heads.items()}
    said |= {f'{path}.ignore_index': metric.get('ignore_index', 255)
             for path, metric in iou_metrics(cfg, loader.replace('dataloader', 'evaluator')).items()}
    problems = []
    if len(set(said.values())) > 1:
        problems.append('ignored pixels have different numbers: ' + ', '.join(
            f'{name} is {number}' for name, number in said.items()) + '. Make them equal (the default is 255)')
    if rule.reduce_zero_label and rule.ignore_index != 255:
        problems.append(f'reduce_zero_label=True makes 0 in label maps into 255, but ignore_index is '
                        f'{rule.ignore_index}: leave ignore_index out')
    return problems


def iou_metrics(cfg: Config, name: str) -> dict[str, dict]:
    """Returns the settings of the metrics of an evaluator that compare label maps, by their dotted paths."""
    evaluators = look_up(cfg, name) or []
    several = isinstance(evaluators, (list, tuple))
    named = {f'{name}.{i}': each for i, each in enumerate(evaluators)} if several else {name: evaluators}
    return {path: each for path, each in named.items() if isinstance(each, dict) and type_name(each) in IOU_METRICS
            and not each.get('format_only')}


def swallowed_class(rule: LabelRule, pixels: np.ndarray, classes: tuple[str, ...], looked_at: str) -> list[str]:
    """Says that ``reduce_zero_label`` takes a class away: labels look as if they were numbered from 0.

    Args:
        rule: What the label maps mean.
        pixels: Number of pixels (256,) by value in the files.
        classes: Names of the classes.
        looked_at: What was looked at, in words.
    """
    number = rule.num_classes or 0
    if not rule.reduce_zero_label or not 2 <= number < 255 or not pixels[:number].all() or pixels[number]:
        return []
    return [f'reduce_zero_label=True ignores 0 in label maps and makes each other number one less, but {looked_at} '
            f'have the numbers 0 to {number - 1} and none has {number}, so that {classes[-1]} would never occur. If 0 '
            f'is {classes[0]}, set reduce_zero_label=False, in the dataset and in LoadAnnotations']


def single_class(rule: LabelRule, counts: np.ndarray, classes: tuple[str, ...], looked_at: str) -> list[str]:
    """Says that all labelled pixels are of one class, beside ignored ones, as where 255 is meant as a class.

    Args:
        rule: What the label maps mean.
        counts: Number of pixels (256,) by class number.
        classes: Names of the classes.
        looked_at: What was looked at, in words.
    """
    present = [number for number in np.flatnonzero(counts[:len(classes)]) if number != rule.ignore_index]
    ignored = counts[rule.ignore_index] if 0 <= rule.ignore_index < 256 else 0
    if len(present) != 1 or len(classes) < 2 or not ignored:
        return []
    return [f'{looked_at} have the class {classes[present[0]]} and ignored pixels ({rule.ignore_index}), and nothing '
            f'else, though there are {len(classes)} classes. If {rule.ignore_index} is meant as a class, as in masks '
            f'of 0 and 255, number the classes from 0 to {len(classes) - 1} in the label maps']


def absent_classes(counts: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Says which classes have no pixel in a whole dataset.

    Args:
        counts: Number of pixels (256,) by class number.
        classes: Names of the classes.
    """
    absent = [name for name, count in zip(classes, counts) if not count]
    return [f'{len(absent)} of {len(classes)} classes have no pixel: {listed(absent, 8)}'] if absent else []

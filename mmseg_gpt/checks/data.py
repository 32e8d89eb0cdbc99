"""Checks of the datasets in a config: all are built, and a sample of their files is opened."""

import logging
import time
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DATASETS, DefaultScope

from ..datasets.folders import check_folders, overlooked_images, present_pairs
from ..datasets.introspect import (
    has_transform,
    highest_class,
    label_rule,
    reader_of,
    rotates,
    sample_files,
    source_datasets,
)
from ..datasets.left_out import left_out
from ..datasets.pairs import LabelRule, error_line, inspect_pair
from ..resources import command_of
from ..settings import look_up, type_name, unwrapped_datasets
from .labels import absent_classes, single_class, swallowed_class, wrong_ignored
from .missing import missing_files
from .trials import NO_LABELS, WITHOUT_LABELS, measures_iou, wrong_batches, wrong_losses

PAIRS, SECONDS = 32, 5.  # how many pairs of a dataset are looked at, and for how long at most
SHOWN = 4


def wrong_data(cfg: Config, loaders: tuple[str, ...], look_at_pairs: bool = True,
               try_batches: bool = False) -> list[str]:
    """Says what is wrong with the datasets of the data loaders; :mod:`.missing` says which folders are missing.

    Args:
        cfg: The whole config.
        loaders: The names of the data loaders that will be used, all of which the config has.
        look_at_pairs: Whether to open files; where there are several processes, one is enough.
        try_batches: Whether to load a few images of each data loader too, where they are right.
    """
    problems, classes = [], {}
    for loader in loaders:
        config = cfg[loader].dataset
        if any(missing_files(source) for source in unwrapped_datasets(config)):
            continue
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            dataset, found = build_dataset(config)
            if dataset is not None:
                names = getattr(dataset, 'metainfo', {}).get('classes')
                classes[loader] = tuple(names) if names else None
                found += wrong_classes(cfg, dataset, loader)
                found += without_labels(dataset) if measures_iou(cfg, loader) else []
                if look_at_pairs:
                    found += wrong_pairs(dataset, loader)
                    warn_of_left_out(dataset, loader)
                    if try_batches and not found:
                        found = wrong_batches(cfg, loader, dataset)
        problems += [f'{loader}: {problem}' for problem in found]
    if len(set(classes.values()) - {None}) > 1:
        problems.append(f'the datasets of {" and ".join(classes)} have other classes, or another order of them: '
                        'give them the same metainfo')
    return problems


def wrong_model(cfg: Config) -> list[str]:
    """Says which parts of a model do not go together: heads and losses, padding and labels, test-time augmentation.

    Args:
        cfg: The whole config; its default scope must be the current one.
    """
    model, problems = cfg.get('model') or {}, []
    inside = model.get('module', model)
    if type_name(model) == 'SegTTAModel' and type_name(inside) == 'LeanEncoderDecoder' and not look_up(
            inside, 'test_cfg.keep_logits'):
        problems.append('tta_model SegTTAModel needs the logits that LeanEncoderDecoder does not keep: use '
                        'tta_model.type=LeanSegTTAModel')
    padding = look_up(inside, 'data_preprocessor') or {}
    for path, head in heads(model, 'model'):
        problems += wrong_losses(path, head)
        ignored = head.get('ignore_index', 255)
        if type_name(padding) == 'SegDataPreProcessor' and padding.get('seg_pad_val', 255) != ignored:
            problems.append(f'model.data_preprocessor.seg_pad_val is {padding.get("seg_pad_val", 255)}, but '
                            f'{path}.ignore_index is {ignored}: the labels of padding would count. Make them equal')
    return problems


def build_dataset(config: ConfigDict) -> tuple[object | None, list[str]]:
    """Builds a dataset, and says what is wrong with its folders, or why it cannot be built.

    Returns:
        The dataset, or None if it cannot be built, and the problems.
    """
    try:
        dataset = DATASETS.build(config)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        if not len(dataset):
            raise ValueError('it has no samples')
        return dataset, [problem for source in source_datasets(dataset) for problem in check_folders(source)]
    except Exception as error:
        try:  # a dataset without files fails when it lists them; unlisted, it knows its folders and suffixes
            unlisted = [DATASETS.build(dict(source, lazy_init=True)) for source in unwrapped_datasets(config)]
            problems = [problem for source in unlisted for problem in check_folders(source) or left_out(source)]
        except Exception:
            problems = []  # it is the first error that counts
        return None, problems or [f'{type_name(config)} cannot be built: {error_line(error)}']


def without_labels(dataset: object) -> list[str]:
    """Says what to set where predictions shall be compared with label maps, and there are none."""
    if has_transform(dataset, 'LoadImageFromFile') and not has_transform(dataset, 'LoadAnnotations'):
        return [NO_LABELS]
    for source in source_datasets(dataset):
        if not hasattr(source, 'img_suffix') or not has_transform(source, 'LoadAnnotations'):
            continue
        for i in range(len(source)):
            image, label = sample_files(source.get_data_info(i))
            if image and not label:
                return [f'{image} has no label map. Name the folder of the label maps in data_prefix.seg_map_path, or, '
                        f'where ann_file lists images and label maps, the file there. {WITHOUT_LABELS}']
    return []


def warn_of_left_out(dataset: object, loader: str) -> None:
    """Warns of images in a dataset's folders that it does not take; some may be there for another purpose."""
    for source in source_datasets(dataset):
        for problem in overlooked_images(source) + left_out(source):
            print_log(f'{loader}: {problem}', 'current', logging.WARNING)


def wrong_pairs(dataset: object, loader: str) -> list[str]:
    """Inspects pairs from all over the dataset until the time is up, and returns the first problems.

    Args:
        dataset: The dataset.
        loader: Name of its data loader, for warnings of what may be meant.
    """
    problems, until = [], time.monotonic() + SECONDS
    looked_at, number = [], 0
    for source in source_datasets(dataset):
        rule, turned, reader = label_rule(source), rotates(source), reader_of(source)
        spread = np.unique(np.linspace(0, len(source) - 1, PAIRS).astype(int)).tolist()
        number += len(source)
        for pair in present_pairs(source, spread):
            if time.monotonic() < until:
                inspection = inspect_pair(*pair, rule, turned, reader)
                problems += inspection.problems
                if inspection.pixels is not None:
                    looked_at.append((rule, inspection.pixels))
    if not problems:
        problems = odd_labels(dataset, looked_at, number, loader)
    if len(problems) > SHOWN:
        problems[SHOWN:] = [f'and {len(problems) - SHOWN} more in a sample of {PAIRS} pairs']
    if problems:
        problems[-1] += f'. All pairs are looked at by: {command_of("check_dataset")} CONFIG'
    return problems


def odd_labels(dataset: object, looked_at: list[tuple[LabelRule, np.ndarray]], number: int, loader: str) -> list[str]:
    """Says that labels cannot mean what the settings say; of a sample of them this is a warning only.

    Args:
        dataset: The dataset.
        looked_at: The rule and the pixels (256,) by value of each label map that was looked at.
        number: How many label maps the dataset has.
        loader: Name of its data loader.

    Returns:
        list: The problems, if all label maps were looked at; else they are warned of.
    """
    classes = tuple(getattr(dataset, 'metainfo', {}).get('classes') or ())
    if not looked_at or not classes:
        return []
    whole = len(looked_at) == number
    words = f'all {number} label maps' if whole else f'the {len(looked_at)} of {number} label maps that were looked at'
    rule = looked_at[0][0]  # sources that are joined to one dataset mean the same by their labels
    pixels = sum(pixels for _, pixels in looked_at)
    counts = sum(np.bincount(each.class_of_value(), pixels, minlength=256) for each, pixels in looked_at)
    odd = swallowed_class(rule, pixels, classes, words) + single_class(rule, counts, classes, words)
    warnings = [] if odd or not whole else absent_classes(counts, classes)
    for warning in warnings + ([] if whole else odd):
        print_log(f'{loader}: {warning}', 'current', logging.WARNING)
    return odd if whole else []


def wrong_classes(cfg: Config, dataset: object, loader: str) -> list[str]:
    """Compares the classes and the ignored number of a dataset with those of heads and metrics.

    Args:
        cfg: The whole config.
        dataset: The dataset.
        loader: Name of its data loader.
    """
    classification = [source for source in source_datasets(dataset) if hasattr(source, 'get_gt_labels')]
    if classification:
        return list(dict.fromkeys(p for source in classification for p in wrong_class_numbers(cfg, source)))
    if not has_transform(dataset, 'LoadAnnotations'):
        return []
    rule, problems = label_rule(dataset), []
    if rule.num_classes is None:
        return ['the dataset has no class names; give it metainfo=dict(classes=(...))']
    for path, head in heads(cfg.get('model', {}), 'model'):
        if head.num_classes != rule.num_classes:
            problems.append(f'{path}.num_classes is {head.num_classes}, but the dataset has {rule.num_classes} classes')
    return problems + wrong_ignored(cfg, loader, rule, dict(heads(cfg.get('model', {}), 'model')))


def wrong_class_numbers(cfg: Config, source: object) -> list[str]:
    """Compares the labels of a classification dataset with its class names, or with the heads if it has none."""
    names, highest, problems = source.metainfo.get('classes'), highest_class(source), []
    if names and highest >= len(names):
        problems.append(f'the dataset has the class number {highest}, but names of {len(names)} classes only')
    for path, head in heads(cfg.get('model', {}), 'model'):
        if names and head.num_classes != len(names):
            problems.append(f'{path}.num_classes is {head.num_classes}, but the dataset has {len(names)} classes')
        elif not names and highest >= head.num_classes:
            problems.append(f'{path}.num_classes is {head.num_classes}, but the dataset has the class number {highest}')
    return problems


def heads(model: object, path: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yields the configs of heads that have a number of classes, with their dotted paths.

    Heads of another task are left out: that of STDC, which finds borders, and those of several tasks.
    """
    if isinstance(model, (list, tuple)):
        for i, each in enumerate(model):
            yield from heads(each, f'{path}.{i}')
    elif isinstance(model, dict) and 'task_heads' not in model and 'boundary_threshold' not in model:
        if 'num_classes' in model and 'head' in path.rstrip('.0123456789').split('.')[-1]:
            yield path, model
        for name, each in model.items():
            yield from heads(each, f'{path}.{name}')

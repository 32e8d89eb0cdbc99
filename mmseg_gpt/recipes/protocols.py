"""Protocols beside the default one, as changes of a classification config."""

import copy

from mmengine.config import Config

from ..settings import type_name
from .experiment import validation


def hold_out_for_search(cfg: Config) -> None:
    """Takes every test image out of a config, so that hyperparameters are chosen on validation images.

    VTAB-1K is trained on its 800 training images and measured on its 200 validation images; FGVC, which trains
    without its validation images anyway, is measured on those.

    Args:
        cfg: A config of classification; it is changed.

    Raises:
        ValueError: the config has no validation images, or they are its test images.
    """
    dataset = cfg.get('test_dataloader', {}).get('dataset', {})
    if type_name(dataset) == 'VTABTask':
        cfg.train_dataloader.dataset.split = 'train800'
        validate_on(cfg, dict(dataset, split='val200'))
    loader = cfg.get('val_dataloader')
    if cfg.get('default_scope') != 'mmpretrain' or not loader or images(loader.dataset) == images(dataset):
        raise ValueError('it has no validation images beside the test images')
    cfg.test_dataloader = copy.deepcopy(loader)


def images(dataset: dict) -> dict:
    """Returns the config of a dataset without what is done to its images."""
    return {key: images(value) if isinstance(value, dict) else value
            for key, value in dataset.items() if key != 'pipeline'}


def follow_the_authors(cfg: Config) -> None:
    """Does what the authors' code does, faults included: for comparison with their numbers.

    The learning rate changes at each epoch and is 0 in the first one. After each epoch the test images are evaluated,
    and the best of these numbers is kept, which is too good by what choosing among 100 gives.

    Args:
        cfg: A config of classification by epochs; it is changed.

    Raises:
        ValueError: it is not a config of classification by epochs.
    """
    if cfg.get('default_scope') != 'mmpretrain' or 'max_epochs' not in cfg.get('train_cfg', {}):
        raise ValueError('the authors published a protocol for classification only')
    epochs = cfg.train_cfg.max_epochs
    warm_up = epochs // 10
    # MMEngine's linear schedule reaches its end at its last epoch but one, and cannot start at 0.
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=1e-9, begin=0, end=warm_up + 1, by_epoch=True),
        dict(type='CosineAnnealingLR', T_max=epochs - warm_up, begin=warm_up, end=epochs, by_epoch=True)]
    cfg.train_cfg.val_interval = 1
    validate_on(cfg, cfg.test_dataloader.dataset)
    cfg.default_hooks.checkpoint.save_best = 'accuracy/top1'


def validate_on(cfg: Config, dataset: dict) -> None:
    """Makes ``dataset`` the one that is validated on, whichever it was before."""
    for key, value in validation(copy.deepcopy(dataset)).items():
        cfg[key] = value  # Config.update would merge them

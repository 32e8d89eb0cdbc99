"""Randomness as a function of the place in the run, not of its history.

Before each sample and each iteration the random generators are seeded from the run's seed and the place of that sample
or iteration in the run. So nothing but the seed and the iteration has to be saved: a resumed run draws the same
images, augmentations, dropout masks and hard gates as one that was never interrupted, with any number of workers, and
without reading the data again.
"""

import logging
import random
from collections.abc import Iterator, Sized
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch.utils.data import DataLoader, Dataset, Sampler

from ..checkpoints import CheckpointError

SAMPLE, ITERATION = 0, 1  # so that a sample and an iteration of the same number differ


def seed_generators(*place: int) -> None:
    """Seeds Python's, NumPy's and torch's generators from non-negative numbers, well apart for any two places.

    In a worker process torch's CUDA generators, which it cannot have, are left alone.
    """
    words = np.random.SeedSequence(place).generate_state(4, np.uint64).tolist()
    random.seed(words[0])
    np.random.seed(words[1] % 2**32)
    torch.default_generator.manual_seed(words[2])
    if torch.cuda.is_initialized() and torch.utils.data.get_worker_info() is None:
        torch.cuda.manual_seed_all(words[3])


class Place(NamedTuple):
    """A sample's place in a run, and which sample of the dataset it is."""
    epoch: int
    position: int  # within the epoch, over all processes
    index: int


@DATA_SAMPLERS.register_module()
class PlaceSampler(Sampler):
    """Takes the samples of another sampler, and says of each where in the run it stands.

    Args:
        sampler: Config of a sampler whose processes take turns, as all of MMEngine's do.
        dataset: The dataset to be sampled.
        seed: The seed of ``sampler``.
    """

    def __init__(self, sampler: dict, dataset: Sized, seed: int) -> None:
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.endless = isinstance(self.sampler, InfiniteSampler)
        self.epoch = self.skipped = 0

    def __iter__(self) -> Iterator[Place]:
        rank, processes = get_rank(), get_world_size()
        for i, index in islice(enumerate(self.sampler), self.skipped, None):
            yield Place(self.epoch, i * processes + rank, index)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of a later epoch; MMEngine's iteration loop starts with 0 even where it resumes."""
        if epoch > self.epoch:
            self.skip_to(epoch, 0)

    def skip_to(self, epoch: int, samples: int) -> None:
        """Starts the next iterator inside ``epoch``, after ``samples`` of this process."""
        self.epoch, self.skipped = epoch, samples
        self.sampler.set_epoch(epoch)


@DATASETS.register_module()
class SeededDataset(Dataset):
    """A dataset whose augmentations depend only on the run's seed and the sample's place.

    Args:
        dataset: Config of a dataset, or the dataset.
        seed: The run's seed.
    """

    def __init__(self, dataset: dict | Dataset, seed: int) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: Place) -> dict:
        seed_generators(self.seed, SAMPLE, place.epoch, place.position)
        return self.dataset[place.index]

    def __getattr__(self, name: str) -> object:
        if name.startswith('__') or name == 'dataset':  # so that copies and pickles of it work
            raise AttributeError(name)
        return getattr(self.dataset, name)


def seeded(train_dataloader: dict, seed: int) -> dict:
    """Returns the config of a data loader, with its samples seeded one by one.

    A loader with a batch sampler of its own is left as it is; resuming then reads the data again, as in MMEngine.
    """
    if train_dataloader.get('batch_sampler') is not None:
        return train_dataloader
    loader = train_dataloader.copy()
    loader['dataset'] = dict(type='SeededDataset', dataset=loader['dataset'], seed=seed)
    loader['sampler'] = dict(type='PlaceSampler', sampler=loader['sampler'])
    return loader


def skip_what_is_done(loader: DataLoader, checkpoint: dict, path: str | Path) -> bool:
    """Lets a data loader begin where the run to be resumed stands, if it can.

    Args:
        loader: The data loader of the training, not iterated yet.
        checkpoint: What the run is resumed from.
        path: The name of its file, for messages.

    Returns:
        Whether it begins there; else its loop must read and drop what comes before.

    Raises:
        CheckpointError: the dataset has another length, so that the place in its epochs is lost.
    """
    done = checkpoint['meta']['iter']
    if not done:
        return False
    check_dataset_length(checkpoint, len(loader.dataset), getattr(loader.sampler, 'endless', False), path)
    return skip_iterations(loader, done)


def check_dataset_length(checkpoint: dict, length: int, endless: bool, path: str | Path) -> None:
    """Compares the number of training samples with that of the run to be resumed.

    Args:
        checkpoint: What the run is resumed from.
        length: The number of samples now.
        endless: Whether the run counts iterations only, and no epochs.
        path: The name of the checkpoint's file, for messages.

    Raises:
        CheckpointError: it is another, and the run counts epochs of it.
    """
    old = checkpoint['meta'].get('dataset_length', length)
    if old == length:
        return
    said = f'its run had {old:,} training samples, and now there are {length:,}'
    if not endless:
        raise CheckpointError(f'{path} cannot be resumed: {said}, so its place in the epochs is lost. Start a new run '
                              'from its weights with load_from')
    print_log(f'{path}: {said}; they are drawn in another order from here on', logger='current', level=logging.WARNING)


def skip_iterations(loader: DataLoader, iterations: int) -> bool:
    """Lets ``loader`` begin where a run stands, without reading what comes before.

    Args:
        loader: A data loader of a :func:`seeded` config, not iterated yet.
        iterations: The number of iterations that the run has done since its first epoch.

    Returns:
        Whether it could; else the loop must read and drop what comes before.
    """
    sampler = loader.sampler
    if not isinstance(sampler, PlaceSampler):
        return False
    epoch, iterations = (0, iterations) if sampler.endless else divmod(iterations, len(loader))
    sampler.skip_to(epoch, iterations * loader.batch_size)
    return True


def begin_in_the_middle(loop: BaseLoop, checkpoint: dict, skipped: bool, path: str | Path) -> None:
    """Prepares a training loop for what :func:`skip_what_is_done` has done to its data loader.

    Args:
        loop: MMEngine's loop, which on its own drops as many batches as iterations are done.
        checkpoint: What the run is resumed from.
        skipped: Whether the data loader begins where the run stands.
        path: The name of the checkpoint's file, for messages.

    Raises:
        CheckpointError: it was saved inside an epoch, whose rest is not known.
    """
    done = checkpoint['meta']['iter']
    if skipped and hasattr(loop, 'dataloader_iterator'):
        loop.dataloader_iterator._epoch = loop.dataloader.sampler.epoch
        loop.dataloader_iterator = AlreadySkipped(loop.dataloader_iterator, done)
    if done and not skipped and isinstance(loop, EpochBasedTrainLoop) and done % len(loop.dataloader):
        raise CheckpointError(f'{path} cannot be resumed: it was saved inside an epoch, whose rest a batch_sampler of '
                              'its own does not know. Resume one saved at the end of an epoch')


class AlreadySkipped:
    """An endless iterator whose first batches cost nothing: MMEngine's loop drops one for each iteration that is done.

    Args:
        batches: The batches after those.
        skipped: The number of batches that the loop will drop.
    """

    def __init__(self, batches: Iterator, skipped: int) -> None:
        self.batches, self.skipped = batches, skipped

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> dict | None:
        if self.skipped:
            self.skipped -= 1
            return None
        return next(self.batches)

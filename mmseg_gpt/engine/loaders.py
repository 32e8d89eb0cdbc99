"""Data loaders: what is added to those of a config, and what is in the batches they give."""

import mmengine.runner
import torch
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..settings import type_name
from .batch import gathered  # noqa: F401  is registered
from .reproducible import seeded


def training_loader(dataloader: dict, seed: int, processes: int = 1, gather: bool = False) -> DataLoader:
    """Builds the data loader that a process of a run trains with.

    Args:
        dataloader: ``train_dataloader`` of a config.
        seed: The run's.
        processes: The number of processes that share its batch.
        gather: Whether the model takes batches that :func:`.batch.gathered` has put together.
    """
    loader = seeded(guarded(share_batch(dataloader, processes)), seed)
    if gather and 'collate_fn' not in loader:
        loader['collate_fn'] = dict(type='gathered')
    return build_loader(loader, seed)


def build_loader(dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
    """Builds a data loader as MMEngine does, with its samples checked; one that is built already is returned.

    Args:
        dataloader: The config of a data loader.
        seed: For its sampler and, as far as they are seeded, its workers.
        diff_rank_seed: Whether the seed of the workers depends on the process.
    """
    if isinstance(dataloader, dict):
        dataloader = guarded(dataloader)
        dataloader.setdefault('pin_memory', torch.cuda.is_available())  # copying to a GPU is then faster
    return mmengine.runner.Runner.build_dataloader(dataloader, seed, diff_rank_seed)


def guarded(dataloader: dict) -> dict:
    """Returns a data loader config whose samples are checked, and whose workers leave signals to the main process.

    Leaving signals replaces MMEngine's seeding of workers, except under a batch sampler of its own, whose samples
    :mod:`.reproducible` does not seed.
    """
    loader, dataset = dataloader.copy(), dataloader['dataset']
    if isinstance(dataset, dict) and type_name(dataset) not in ('GuardedDataset', 'SeededDataset'):
        loader['dataset'] = dict(type='GuardedDataset', dataset=dataset)
    if loader.get('batch_sampler') is None and 'worker_init_fn' not in loader:
        loader.pop('disable_subprocess_warning', None)  # an option of what is replaced
        loader['worker_init_fn'] = dict(type='leave_signals_to_the_main_process')
    return loader


def share_batch(train_dataloader: dict, processes: int) -> dict:
    """Returns a data loader config with one process's share of the batch.

    Raises:
        SystemExit: the batch cannot be divided among the processes.
    """
    total = train_dataloader['batch_size']
    if total % processes:
        raise SystemExit(f'the batch of {total} images cannot be divided among {processes} processes: use a divisor, '
                         'or another batch with --cfg-options train_dataloader.batch_size=N')
    share = train_dataloader.copy()
    share['batch_size'] = total // processes
    if processes > 1:
        print_log(f'batch: {total} images in all, {total // processes} in each of {processes} processes',
                  logger='current')
    return share


def check_same_length(loader: DataLoader) -> None:
    """Refuses epochs that are longer in one process than in another, which would wait for it for ever.

    Raises:
        SystemExit: they are; with a sampler that rounds up they are not.
    """
    lengths = all_gather_object(len(loader))
    if len(set(lengths)) > 1:
        raise SystemExit(f'an epoch has {lengths} batches in the {len(lengths)} processes: set '
                         'train_dataloader.sampler.round_up=True, or drop_last=True')


def stop_workers(loop: object) -> None:
    """Ends the workers of a loop's data loader, which starts new ones if it is used again.

    The garbage collector would come late and might close the queues first, by which the workers learn that they are to
    end: torch then waits 5 s for each loader.

    Args:
        loop: A loop, or what it is still to be built from.
    """
    endless = getattr(loop, 'dataloader_iterator', None)
    for holder in (getattr(loop, 'dataloader', None), getattr(endless, 'batches', endless)):  # of AlreadySkipped
        if hasattr(getattr(holder, '_iterator', None), '_shutdown_workers'):
            holder._iterator._shutdown_workers()
            holder._iterator = None


def samples_of(batch: object) -> list:
    """Returns the data samples of a batch of mmsegmentation or mmpretrain, and an empty list for any other batch."""
    return batch.get('data_samples') or [] if isinstance(batch, dict) else []


def image_files(batch: object) -> list[str]:
    """Returns the names of the image files of a batch, as far as it knows them."""
    return [path for sample in samples_of(batch) if (path := getattr(sample, 'img_path', None))]

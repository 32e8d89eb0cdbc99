"""Several processes: the launcher, the share of each in the batch, and gloo where there is no GPU."""

import os

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
WORLD_SIZE_VARIABLES = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}


def set_launcher(cfg: Config, launcher: str | None) -> None:
    """Sets the launcher of ``cfg`` and gives each process its share of the training batch.

    ``train_dataloader.batch_size`` in our configs is the batch of all processes together, so that a
    learning rate means the same on one GPU and on eight.

    Args:
        cfg: The config, changed in place.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'; None takes 'pytorch' under torchrun, else 'none'.

    Raises:
        SystemExit: the batch cannot be divided among the processes.
    """
    if launcher is None:
        launcher = 'pytorch' if {'RANK', 'LOCAL_RANK', 'WORLD_SIZE'} <= os.environ.keys() else 'none'
    cfg.launcher = launcher
    if launcher == 'none':
        return
    processes = int(os.environ.get(WORLD_SIZE_VARIABLES[launcher], 1))
    if 'train_dataloader' in cfg:
        share_batch(cfg.train_dataloader, processes)
    if launcher == 'pytorch' and not torch.cuda.is_available():
        use_gloo(cfg)


def share_batch(train_dataloader: ConfigDict, processes: int) -> None:
    """Divides the batch of a data loader config among processes."""
    total = train_dataloader.batch_size
    if total % processes:
        raise SystemExit(f'the batch of {total} images cannot be divided among {processes} processes: use a divisor, '
                         f'or another batch with --cfg-options train_dataloader.batch_size=N')
    train_dataloader.batch_size = total // processes
    print_log(f'batch: {total} images in all, {total // processes} in each of {processes} processes', logger='current')


def use_gloo(cfg: Config) -> None:
    """Starts the processes on a machine without CUDA, where MMEngine 0.10.7 would call torch.cuda."""
    torch.distributed.init_process_group('gloo')
    # CPU modules must not have device_ids, and the runner sets them where they are not given.
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=True)
    replace_sync_bn(cfg.model)


def replace_sync_bn(cfg: dict | list) -> None:
    """Turns every SyncBN of a model config into BN, in place: SyncBN trains on GPUs only."""
    for value in cfg.values() if isinstance(cfg, dict) else cfg:
        if isinstance(value, dict | list):
            replace_sync_bn(value)
    if isinstance(cfg, dict) and cfg.get('type') == 'SyncBN':
        cfg['type'] = 'BN'

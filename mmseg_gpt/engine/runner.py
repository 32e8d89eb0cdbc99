"""MMEngine's runner, with what a run of 160,000 iterations needs to be trusted."""

import atexit
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import mmengine.runner
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoints import CheckpointError
from ..models.complete import explicit
from .checkpoint_runner import CheckpointRunner
from .reproducible import AlreadySkipped, seeded, skip_iterations
from .resume import check_dataset_length

GUARDS = ('SeedIterationHook', 'AgreeHook', 'IgnoredBatchHook', 'NonFiniteHook', 'SameBuffersHook', 'StopOnSignalHook')


class Runner(CheckpointRunner):
    """The runner of our tools. What differs from MMEngine 0.10.7's:

    * The config that is stored says every number of the model, see :mod:`mmseg_gpt.models.complete`.
    * Checkpoints are those of :class:`CheckpointRunner`, and ``CheckpointHook`` means :class:`AtomicCheckpointHook`.
    * A resumed run goes on exactly as if it had not been interrupted, see :mod:`.reproducible`.
    * Every sample is checked: it has its files, and labels that are classes.
    * The hooks in ``GUARDS`` are always there; listed in ``custom_hooks`` they take options.
    * ``train_dataloader.batch_size`` is the batch of all processes together, so that a learning rate means
      the same on one GPU and on eight. The config that is saved keeps it.
    * On a machine without CUDA, torchrun starts gloo processes, with BN in the place of SyncBN, which trains
      on GPUs only. Each process then has batch statistics of its own.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'Runner':
        return super().from_cfg(explicit(cfg))

    def _log_env(self, env_cfg: dict) -> None:
        # MMEngine would import torchvision for the number of its version.
        with hidden('torchvision'):
            super()._log_env(env_cfg)

    def setup_env(self, env_cfg: dict) -> None:
        if self.launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
            atexit.register(end_process_group)
        super().setup_env(env_cfg)

    def set_randomness(self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        # One seed for all processes, from which each iteration of each makes its own.
        super().set_randomness(seed, diff_rank_seed=False, deterministic=deterministic)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if self.distributed and not torch.cuda.is_available():
            model = revert_sync_batchnorm(model)
            # The runner would set device_ids, which CPU modules must not have.
            model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=True)
        return super().wrap_model(model_wrapper_cfg, model)

    def register_hooks(self, default_hooks: dict[str, Hook | dict] | None = None,
                       custom_hooks: list[Hook | dict] | None = None) -> None:
        super().register_hooks(default_hooks, custom_hooks or [])

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', {})
        if isinstance(checkpoint, dict) and checkpoint.get('type', 'CheckpointHook') == 'CheckpointHook':
            hooks['checkpoint'] = dict(checkpoint, type='AtomicCheckpointHook')
        super().register_default_hooks(hooks)

    def register_custom_hooks(self, hooks: list[Hook | dict]) -> None:
        kinds = (hook['type'] if isinstance(hook, dict) else type(hook) for hook in hooks)
        present = {kind if isinstance(kind, str) else kind.__name__ for kind in kinds}
        super().register_custom_hooks([*hooks, *(dict(type=guard) for guard in GUARDS if guard not in present)])

    def dump_config(self) -> None:
        """Does nothing yet: the config in a work directory is that of its training, whatever is tested in it."""

    def train(self) -> nn.Module:
        super().dump_config()
        return super().train()

    def build_train_loop(self, loop: dict) -> mmengine.runner.BaseLoop:
        if isinstance(self._train_dataloader, dict):
            self._train_dataloader = training_loader(self._train_dataloader, self.seed, self.world_size)
        done = self._resumed['meta']['iter'] if self._resumed else 0
        skipped = done > 0 and self._skip(done)
        loop = super().build_train_loop(loop)
        if skipped and hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator._epoch = self._train_dataloader.sampler.epoch
            loop.dataloader_iterator = AlreadySkipped(loop.dataloader_iterator, done)
        if done and not skipped and isinstance(loop, EpochBasedTrainLoop) and done % len(loop.dataloader):
            raise CheckpointError(f'{self._load_from} cannot be resumed: it was saved inside an epoch, whose rest a '
                                  'batch_sampler of its own does not know. Resume one saved at the end of an epoch')
        return loop

    def _skip(self, done: int) -> bool:
        """Lets the data begin after ``done`` iterations, if its place in the run is known."""
        loader = self._train_dataloader
        endless = getattr(loader.sampler, 'endless', False)
        check_dataset_length(self._resumed, len(loader.dataset), endless, self._load_from)
        return skip_iterations(loader, done)

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None,
                         diff_rank_seed: bool = False) -> DataLoader:
        if isinstance(dataloader, dict):
            dataloader = guarded(dataloader)
            dataloader.setdefault('pin_memory', torch.cuda.is_available())  # copying to a GPU is then faster
        return mmengine.runner.Runner.build_dataloader(dataloader, seed, diff_rank_seed)


def end_process_group() -> None:
    """Ends gloo, and lets its threads put away the last tensors.

    A thread that comes to it when Python has ended cannot, and aborts the process ("terminate called without an active
    exception"): torch 2.13's ``ProcessGroupGloo::runLoop`` lets go of a tensor some microseconds after its result is
    there, for which it needs the interpreter.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(0.2)


def training_loader(dataloader: dict, seed: int, processes: int = 1) -> DataLoader:
    """The data loader that a process of a run trains with.

    Args:
        dataloader: ``train_dataloader`` of a config.
        seed: The run's.
        processes: Those that share its batch.
    """
    return Runner.build_dataloader(seeded(guarded(share_batch(dataloader, processes)), seed), seed)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Lets a package that has not been imported yet seem absent."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


def guarded(dataloader: dict) -> dict:
    """A copy of a data loader config whose samples are checked, and whose workers leave signals to the main process.

    The latter replaces MMEngine's seeding of workers, except under a batch sampler of its own, whose samples
    :mod:`.reproducible` does not seed.
    """
    loader, dataset = dataloader.copy(), dataloader['dataset']
    if isinstance(dataset, dict) and dataset['type'] not in ('GuardedDataset', 'SeededDataset'):
        loader['dataset'] = dict(type='GuardedDataset', dataset=dataset)
    if loader.get('batch_sampler') is None and 'worker_init_fn' not in loader:
        loader.pop('disable_subprocess_warning', None)  # an option of what is replaced
        loader['worker_init_fn'] = dict(type='leave_signals_to_the_main_process')
    return loader


def share_batch(train_dataloader: dict, processes: int) -> dict:
    """A copy of a data loader config with the share of one process in the batch.

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

"""MMEngine's runner, with what a run of 160,000 iterations needs to be trusted."""

import time
from functools import cached_property
from pathlib import Path

import mmengine
import mmengine.runner
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from torch import nn
from torch.utils.data import DataLoader

from .. import __version__
from ..checkpoints import CheckpointError, read_file
from ..checkpoints.adapters import frozen_state, load_model_state, unwrap
from ..checkpoints.plain import from_plain
from ..checkpoints.write import write_checkpoint
from .reproducible import AlreadySkipped, guarded, seeded, skip_iterations
from .resume import check_classes, check_resumable_file, check_settings, newest_checkpoint, settings_of

GUARDS = ('SeedIterationHook', 'IgnoredBatchHook', 'NonFiniteHook', 'SameBuffersHook', 'StopOnSignalHook')


class Runner(mmengine.runner.Runner):
    """The runner of our tools. What differs from MMEngine 0.10.7's:

    * Checkpoints are read with ``weights_only=True``, must fill the model, are written whole or not at all, and hold
      plain types only. ``CheckpointHook`` means :class:`AtomicCheckpointHook`.
    * A resumed run goes on exactly as if it had not been interrupted, see :mod:`.reproducible`.
    * Every sample is checked: it has its files, and labels that are classes.
    * The hooks in ``GUARDS`` are always there; listed in ``custom_hooks`` they take options.
    * ``train_dataloader.batch_size`` is the batch of all processes together, so that a learning rate means
      the same on one GPU and on eight. The config that is saved keeps it.
    * On a machine without CUDA, torchrun starts gloo processes, with BN in the place of SyncBN, which trains
      on GPUs only. Each process then has batch statistics of its own.
    """

    # Set by AtomicCheckpointHook: what stands in for the frozen weights in a checkpoint without them.
    frozen_source: dict | None = None
    _resumed: dict | None = None

    # --- starting ---

    def setup_env(self, env_cfg: dict) -> None:
        if self.launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
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

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', {})
        if isinstance(checkpoint, dict) and checkpoint.get('type', 'CheckpointHook') == 'CheckpointHook':
            hooks['checkpoint'] = dict(checkpoint, type='AtomicCheckpointHook')
        super().register_default_hooks(hooks)

    def register_custom_hooks(self, hooks: list[Hook | dict]) -> None:
        present = {hook['type'] if isinstance(hook, dict) else type(hook).__name__ for hook in hooks}
        super().register_custom_hooks([*hooks, *(dict(type=guard) for guard in GUARDS if guard not in present)])

    def train(self) -> nn.Module:
        if self._resume:
            self._resumed = self.read_resumed()
        try:
            return super().train()
        finally:
            self.call_hook('release')

    def build_train_loop(self, loop: dict) -> mmengine.runner.BaseLoop:
        if isinstance(self._train_dataloader, dict):
            config = seeded(share_batch(self._train_dataloader, self.world_size), self.seed)
            self._train_dataloader = self.build_dataloader(config, seed=self.seed)
        done = self._resumed['meta']['iter'] if self._resumed else 0
        skipped = done > 0 and skip_iterations(self._train_dataloader, done)
        loop = super().build_train_loop(loop)
        if skipped and hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator._epoch = self._train_dataloader.sampler.epoch
            loop.dataloader_iterator = AlreadySkipped(loop.dataloader_iterator, done)
        return loop

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None,
                         diff_rank_seed: bool = False) -> DataLoader:
        if isinstance(dataloader, dict):
            dataloader = guarded(dataloader)
        return mmengine.runner.Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    # --- resuming and loading ---

    def _init_model_weights(self) -> None:
        # What is resumed fills the whole model, so the pretrained file need not be there any more.
        if not self._resumed:
            super()._init_model_weights()

    def read_resumed(self) -> dict | None:
        """Reads the checkpoint to resume, sets the run's seed from it, and refuses a config that is not the run's.

        Raises:
            CheckpointError: it cannot be resumed, or not with this config.
        """
        self._load_from = self._load_from or newest_checkpoint(self.work_dir)
        if self._load_from is None:
            self.logger.info(f'{self.work_dir} holds no checkpoint: the run starts from iteration 0')
            self._resume = False
            return None
        checkpoint = check_resumable_file(Path(self._load_from))
        check_settings(checkpoint, self.cfg, self._load_from)
        seed = checkpoint['meta'].get('seed')
        if seed != self.seed:
            self.logger.info(f'the run goes on with its seed, {seed}')
            self._randomness_cfg.update(seed=seed)
            self.set_randomness(**self._randomness_cfg)
        return checkpoint

    def resume(self, filename: str, resume_optimizer: bool = True, resume_param_scheduler: bool = True,
               map_location: str = 'default') -> None:
        """Restores weights, optimizer, schedule, counters and log from what :meth:`read_resumed` read.

        Raises:
            CheckpointError: it does not fit the model, the classes or the optimizer.
        """
        checkpoint, self._resumed = self._resumed or self.read_resumed(), None
        check_classes(checkpoint, getattr(self.train_dataloader.dataset, 'metainfo', None), filename)
        self._fill(checkpoint, filename)
        self.train_loop._epoch, self.train_loop._iter = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
        self.message_hub.load_state_dict(from_plain(checkpoint['message_hub']))
        if resume_optimizer:
            try:
                self.optim_wrapper.load_state_dict(checkpoint['optimizer'])
            except (ValueError, KeyError) as error:
                raise CheckpointError(f'{filename} cannot be resumed: its optimizer had other parameters. {error}'
                                      ) from error
        if resume_param_scheduler and 'param_schedulers' in checkpoint:
            for scheduler, state in zip(schedulers_of(self), schedulers_of(checkpoint), strict=True):
                scheduler.load_state_dict(state)
        self._has_loaded = True
        self.logger.info(f'resumed from {filename} at iteration {self.iter} (epoch {self.epoch})')
        if self.iter >= self.max_iters:
            self.logger.warning(f'this run has done all its {self.max_iters} iterations; tools/test.py evaluates it')

    def load_checkpoint(self, filename: str, map_location: str = 'cpu', strict: bool = True,
                        revise_keys: list | None = None) -> dict:
        """Fills the model from a local checkpoint, completely or not at all, whatever the arguments after the first.

        Raises:
            CheckpointError: the file is damaged, or is not of this model.
            FileNotFoundError: there is no such file.
        """
        checkpoint = read_file(filename)
        if not isinstance(checkpoint, dict):
            raise CheckpointError(f'{filename} holds no weights')
        self._fill(checkpoint, filename)
        self._has_loaded = True
        self.logger.info(f'loaded {filename}')
        return checkpoint

    def _fill(self, checkpoint: dict, filename: str) -> None:
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_model_state(self.model, checkpoint, filename)

    # --- saving ---

    @cached_property
    def recorded_config(self) -> dict[str, str]:
        """The config as a checkpoint holds it: to be compared, and to be read. Formatting it takes a while."""
        return dict(settings=settings_of(self.cfg), cfg=self.cfg.pretty_text)

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: dict | None = None,
                        save_optimizer: bool = True, save_param_scheduler: bool = True, meta: dict | None = None,
                        by_epoch: bool = True, backend_args: dict | None = None) -> None:
        """Writes a checkpoint, whole or not at all; the arguments are MMEngine's.

        Raises:
            CheckpointError: a weight is not finite, or the file cannot be written.
        """
        done = dict(epoch=self.epoch + 1, iter=self.iter) if by_epoch else dict(epoch=self.epoch, iter=self.iter + 1)
        model = unwrap(self.model)
        checkpoint = dict(
            meta=dict(
                done, **(meta or {}), seed=self.seed, **self.recorded_config,
                experiment_name=self.experiment_name, time=time.strftime('%Y%m%d_%H%M%S'),
                mmengine_version=mmengine.__version__, mmseg_gpt_version=__version__,
                dataset_meta=getattr(self.train_dataloader.dataset, 'metainfo', None)),
            state_dict=model.state_dict(), message_hub=self.message_hub.state_dict())
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in schedulers_of(self)]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        if self.frozen_source:
            checkpoint['meta']['frozen'] = self.frozen_source
            for name in frozen_state(model):
                del checkpoint['state_dict'][name]
        write_checkpoint(checkpoint, Path(out_dir, filename))


def schedulers_of(owner: Runner | dict) -> list:
    """The parameter schedulers of a runner, or their states in a checkpoint, in one list."""
    schedulers = owner['param_schedulers'] if isinstance(owner, dict) else owner.param_schedulers or []
    return [s for group in schedulers.values() for s in group] if isinstance(schedulers, dict) else list(schedulers)


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
    print_log(f'batch: {total} images in all, {total // processes} in each of {processes} processes', logger='current')
    return share

"""The half of the runner that reads and writes checkpoints."""

import time
from functools import cached_property
from pathlib import Path

import mmengine
import mmengine.runner
from mmengine.dist import all_gather_object, master_only
from torch import nn

from .. import __version__
from ..adapters import frozen_state, load_model_state, unwrap
from ..checkpoints import CheckpointError, fetch, read_file
from ..checkpoints.plain_types import from_plain
from ..checkpoints.write import write_checkpoint
from ..checks.checkpoint import check_backbone, check_data
from ..settings import look_up, settings_of
from .resume import check_classes, check_resumable_file, check_settings, newest_checkpoint


class CheckpointRunner(mmengine.runner.Runner):
    """MMEngine's runner with other ways of loading, resuming and saving.

    Checkpoints are read with ``weights_only=True``, must fill the model, are written whole or not at all, and hold
    plain types only.
    """

    # Set by AtomicCheckpointHook: what stands in for the frozen weights in a checkpoint without them.
    frozen_source: dict | None = None
    _resumed: dict | None = None

    def train(self) -> nn.Module:
        if self._resume:
            self._resumed = self.read_resumed(self._load_from)
        if len(set(all_gather_object(self._resumed['meta']['iter'] if self._resumed else 0))) > 1:
            raise CheckpointError(f'the processes would go on from different checkpoints: {self.work_dir} must be the '
                                  'same folder on all machines')
        try:
            return super().train()
        finally:
            self.call_hook('release')

    def _init_model_weights(self) -> None:
        # What is resumed fills the whole model, so the pretrained file need not be there any more.
        if not self._resumed and not self._has_loaded:
            super()._init_model_weights()

    def read_resumed(self, filename: str | None) -> dict | None:
        """Reads the checkpoint to resume, sets the run's seed from it, and refuses a config that is not the run's.

        Args:
            filename: None for the newest of the run in the work directory.

        Returns:
            The checkpoint, or None where there has been no run; then nothing is resumed.

        Raises:
            CheckpointError: it cannot be resumed, or not with this config.
        """
        out_dir = look_up(self.cfg, 'default_hooks.checkpoint.out_dir')
        self._load_from = filename or newest_checkpoint(self.work_dir, out_dir)
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
        checkpoint, self._resumed = self._resumed or self.read_resumed(filename), None
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
        """Fills the model from a checkpoint, completely or not at all, whatever the arguments after the first.

        Args:
            filename: A path, or an address, which is fetched.

        Raises:
            CheckpointError: the file is damaged, or is not of this model.
            FileNotFoundError: there is no such file.
        """
        checkpoint = read_file(fetch(filename))
        if not isinstance(checkpoint, dict):
            raise CheckpointError(f'{filename} holds no weights')
        self._fill(checkpoint, filename)
        if not isinstance(self._train_loop, mmengine.runner.BaseLoop):  # to be evaluated, not to be trained from
            check_backbone(self.model, checkpoint, filename)
            check_data(self.cfg, checkpoint, filename)
        self._has_loaded = True
        self.logger.info(f'loaded {filename}')
        return checkpoint

    def _fill(self, checkpoint: dict, filename: str) -> None:
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_model_state(self.model, checkpoint, filename)

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
                dataset_meta=getattr(self.train_dataloader.dataset, 'metainfo', None),
                dataset_length=len(self.train_dataloader.dataset)),
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


def schedulers_of(owner: CheckpointRunner | dict) -> list:
    """The parameter schedulers of a runner, or their states in a checkpoint, in one list."""
    schedulers = owner['param_schedulers'] if isinstance(owner, dict) else owner.param_schedulers or []
    return [s for group in schedulers.values() for s in group] if isinstance(schedulers, dict) else list(schedulers)

"""MMEngine's runner, with what a run of 160,000 iterations needs to be trusted."""

import atexit
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import mmengine.runner
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, master_only
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from ..adapters import load_model_state, unwrap
from ..checkpoints import CheckpointError, fetch, read_file
from ..checkpoints.write import write_checkpoint
from ..checks.checkpoint import check_evaluated, check_names
from ..checks.pairs import default_best
from ..models.complete import explicit
from ..models.sync_batch_norm import synchronise
from ..settings import settings_of, type_name, with_classes
from .launching import set_tf32
from .loaders import build_loader, check_same_length, stop_workers, training_loader
from .nodes import check_same_data, read_once_a_node, start_gloo_without_cuda, with_long_wait
from .reproducible import begin_in_the_middle, skip_what_is_done
from .resume import check_classes, check_same_start, find_resumed
from .starts import name_of_start, sole_training
from .state import put_back, state_of, without_frozen

# In every run; list one in ``custom_hooks`` to give it options.
STANDARD_HOOKS = ('SeedIterationHook', 'AgreeHook', 'IgnoredBatchHook', 'NonFiniteHook', 'SameBuffersHook',
                  'StopOnSignalHook', 'MissedValidationHook', 'ProgressHook', 'KeepFeaturesHook', 'HalfFrozenHook')


class Runner(mmengine.runner.Runner):
    """The runner of our tools. It differs from MMEngine 0.10.7's:

    * Checkpoints are read with ``weights_only=True``, must fill the model, hold plain types only, and are written
      whole or not at all. ``CheckpointHook`` means :class:`AtomicCheckpointHook`. The one with the best mIoU is kept
      too, where a training measures it more than once, unless ``save_best`` says otherwise.
    * The config that is stored says every number of the model, see :mod:`mmseg_gpt.models.complete`.
    * A resumed run goes on exactly as if it had not been interrupted, see :mod:`.reproducible`.
    * A work directory has one training at a time, whose logs are named in the order of its starts, see :mod:`.starts`.
    * Every sample is checked: it has its files, and labels that are classes.
    * The hooks in ``STANDARD_HOOKS`` are always there.
    * ``train_dataloader.batch_size`` is the batch of all processes together, so that a learning rate means
      the same on one GPU and on eight. The config that is saved keeps it.
    * SyncBN means :class:`mmseg_gpt.models.sync_batch_norm.SyncBatchNorm`, which does not wait for the GPU.
    * On a machine without CUDA, torchrun starts gloo processes, and SyncBN works in them too.
    """

    frozen_source: dict | None = None  # set by AtomicCheckpointHook: where weights are that a checkpoint leaves out
    done = False  # whether the last run of this process has come to its end
    written: str | None = None  # when the checkpoint that was loaded was written, if it says so
    _resumed: dict | None = None  # a checkpoint that has been read and is still to be put back

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'Runner':
        return super().from_cfg(explicit(with_classes(cfg)))

    def _log_env(self, env_cfg: dict) -> None:
        # MMEngine would import torchvision for the number of its version.
        with hidden('torchvision'):
            super()._log_env(env_cfg)

    def setup_env(self, env_cfg: dict) -> None:
        env_cfg = dict(env_cfg, dist_cfg=with_long_wait(env_cfg.get('dist_cfg')))
        if self.launcher == 'pytorch':
            start_gloo_without_cuda(env_cfg['dist_cfg']['timeout'])
        super().setup_env(env_cfg)
        names = [name_of_start(self._timestamp, Path(self._work_dir))]
        broadcast_object_list(names)
        self._timestamp = names[0]
        set_tf32(env_cfg.get('tf32'))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            atexit.unregister(end_processes)
            atexit.register(end_processes)

    def set_randomness(self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        if deterministic:  # cuBLAS reads it when it starts, and torch refuses matrix products without it
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        # All processes share one seed; SeedIterationHook adds the rank and the iteration.
        super().set_randomness(seed, diff_rank_seed=False, deterministic=deterministic)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, BaseDataPreprocessor):
                module._non_blocking = torch.cuda.is_available()  # data loaders pin their memory then
        unused = {name: self.cfg[name] for name in ('find_unused_parameters', ) if name in self.cfg}
        if self.distributed:
            synchronise(model)
        if self.distributed and not torch.cuda.is_available():
            # The runner would set device_ids, which CPU modules must not have.
            model_wrapper_cfg = dict(dict(type='MMDistributedDataParallel', broadcast_buffers=True, **unused),
                                     **(model_wrapper_cfg or {}), device_ids=None)
        elif self.distributed and model_wrapper_cfg is not None:
            model_wrapper_cfg = dict(unused, **model_wrapper_cfg)
        wrapped = super().wrap_model(model_wrapper_cfg, model)
        return synchronise(wrapped) if self.distributed else wrapped  # also what the setting sync_bn has made

    def register_hooks(self, default_hooks: dict[str, Hook | dict] | None = None,
                       custom_hooks: list[Hook | dict] | None = None) -> None:
        super().register_hooks(default_hooks, custom_hooks or [])

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        super().register_default_hooks(with_atomic_checkpoints(hooks or {}, default_best(self.cfg)))

    def register_custom_hooks(self, hooks: list[Hook | dict]) -> None:
        super().register_custom_hooks(with_standard_hooks(hooks))

    def dump_config(self) -> None:
        """Does nothing: ``train`` writes the config, so that a test does not overwrite that of the training."""

    def train(self) -> nn.Module:
        with sole_training(Path(self.work_dir)):
            super().dump_config()
            Runner.done = False
            if self._resume:
                self._resumed = self.read_resumed(self._load_from)
            if self.distributed:
                check_same_start(self._resumed, self.work_dir)
            try:
                model = super().train()
                Runner.done = True
                return model
            finally:
                self.call_hook('release')
                stop_workers(self._train_loop)
                stop_workers(self._val_loop)

    def test(self) -> dict:
        with self.without_training():
            metrics = super().test()
            Runner.done = True
            return metrics

    def val(self) -> dict:
        with self.without_training():
            return super().val()

    @contextmanager
    def without_training(self) -> Iterator[None]:
        """Keeps hooks that ask for the iteration from building a training, and with it the training data."""
        loop = self._train_loop
        if not isinstance(loop, BaseLoop):
            self._train_loop = None
        try:
            yield
        finally:
            self._train_loop = loop
            stop_workers(self._val_loop)
            stop_workers(self._test_loop)

    def build_train_loop(self, loop: dict) -> BaseLoop:
        if isinstance(self._train_dataloader, dict):
            gather = getattr(unwrap(self.model).data_preprocessor, 'takes_gathered', False)
            self._train_dataloader = training_loader(self._train_dataloader, self.seed, self.world_size, gather)
        skipped = bool(self._resumed) and skip_what_is_done(self._train_dataloader, self._resumed, self._load_from)
        loop = super().build_train_loop(loop)
        check_same_data(loop.dataloader.dataset)
        if self.distributed and isinstance(loop, EpochBasedTrainLoop):
            check_same_length(loop.dataloader)
        if self._resumed:
            begin_in_the_middle(loop, self._resumed, skipped, self._load_from)
        return loop

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None,
                         diff_rank_seed: bool = False) -> DataLoader:
        return build_loader(dataloader, seed, diff_rank_seed)

    def _init_model_weights(self) -> None:
        # What is resumed fills the whole model, so the pretrained file need not be there any more.
        if self._resumed or self._has_loaded:
            return
        if self.distributed:
            read_once_a_node(unwrap(self.model))
        else:
            super()._init_model_weights()

    def read_resumed(self, filename: str | None) -> dict | None:
        """Reads the checkpoint to resume as :func:`find_resumed` does, and takes the run's seed from it.

        Raises:
            CheckpointError: it cannot be resumed, or not with this config.
        """
        self._load_from, checkpoint = find_resumed(self.cfg, self.work_dir, filename)
        if checkpoint is None:
            self._resume = False
        elif checkpoint['meta'].get('seed') != self.seed:
            self._randomness_cfg.update(seed=checkpoint['meta'].get('seed'))
            self.set_randomness(**self._randomness_cfg)
            self.logger.info(f'the run goes on with its seed, {self.seed}')
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
        put_back(self, checkpoint, filename, resume_optimizer, resume_param_scheduler)
        self._has_loaded = True

    def load_checkpoint(self, filename: str, map_location: str = 'cpu', strict: bool = True,
                        revise_keys: list | None = None) -> dict:
        """Fills the model from a file or an address, completely or not at all, whatever the other arguments.

        Raises:
            CheckpointError: the file is damaged, or is not of this model.
            FileNotFoundError: there is no such file.
        """
        checkpoint = read_file(fetch(filename))
        if not isinstance(checkpoint, dict):
            raise CheckpointError(f'{filename} holds no weights')
        self._fill(checkpoint, filename)
        if isinstance(self._train_loop, BaseLoop):
            check_names(classes_of(self._train_loop), checkpoint, filename, strict=False)
        else:
            evaluated = next((loop for loop in (self._test_loop, self._val_loop) if isinstance(loop, BaseLoop)), None)
            check_evaluated(self.model, self.cfg, checkpoint, filename, classes_of(evaluated))
        self._has_loaded = True
        meta = checkpoint.get('meta')
        self.written = meta.get('time') if isinstance(meta, dict) else None
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
        checkpoint = state_of(self, done, meta or {}, save_optimizer, save_param_scheduler)
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        if self.frozen_source:
            without_frozen(checkpoint, self)
        write_checkpoint(checkpoint, Path(out_dir, filename))


def classes_of(loop: BaseLoop | None) -> Sequence[str] | None:
    """Returns the names of the classes of a loop's dataset, or None where they are not known."""
    dataset = loop.dataloader.dataset if loop else None
    return (getattr(dataset, 'metainfo', None) or {}).get('classes')


def with_atomic_checkpoints(default_hooks: dict[str, Hook | dict], best: str | None) -> dict[str, Hook | dict]:
    """Returns default hooks in which AtomicCheckpointHook stands in the place of MMEngine's CheckpointHook.

    Args:
        default_hooks: The hooks of the config.
        best: The metric whose best checkpoint is kept too, where they do not say it; None for none.
    """
    checkpoint = default_hooks.get('checkpoint', {})
    if isinstance(checkpoint, dict):
        if type_name(checkpoint, 'CheckpointHook') == 'CheckpointHook':
            checkpoint = dict(checkpoint, type='AtomicCheckpointHook')
        checkpoint = {**({'save_best': best} if best else {}), **checkpoint}
    return dict(default_hooks, checkpoint=checkpoint)


def with_standard_hooks(hooks: list[Hook | dict]) -> list[Hook | dict]:
    """Returns hooks together with those of ``STANDARD_HOOKS`` that are not among them."""
    present = set(map(type_name, hooks))
    return [*hooks, *(dict(type=name) for name in STANDARD_HOOKS if name not in present)]


def end_processes() -> None:
    """Ends what processes exchange tensors by: gloo always, and NCCL, which would complain, after an orderly run.

    NCCL may wait for the other processes, which torchrun is to end if this one has failed. And gloo's threads get time
    to put away the last tensors. One that is late finds that Python has ended, and aborts the process ("terminate
    called without an active exception"): torch 2.13's ``ProcessGroupGloo::runLoop`` lets go of a tensor some
    microseconds after its result is there, for which it needs the interpreter.
    """
    if torch.distributed.is_initialized() and (Runner.done or torch.distributed.get_backend() == 'gloo'):
        torch.distributed.destroy_process_group()
        time.sleep(0.2)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Makes a package that has not been imported yet seem absent."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]

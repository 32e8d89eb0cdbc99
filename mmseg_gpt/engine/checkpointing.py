"""When a run saves: MMEngine's checkpoint hook, which removes old checkpoints only after the new one is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from ..checkpoints.adapters import frozen_source, unwrap
from ..checkpoints.write import write_text
from .resume import POINTER


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook with another order: write, name the newest in ``last_checkpoint``, remove the old.

    MMEngine 0.10.7 removes first, so that a run killed while saving can lose every checkpoint it had.

    Args:
        adapter_only: Leave the frozen ViT out of checkpoints, which makes them some MB instead of hundreds. They need
            the pretrained file to be loaded again, see :mod:`mmseg_gpt.checkpoints.adapters`.
        **kwargs: Those of ``mmengine.hooks.CheckpointHook``. ``out_dir`` must be a local folder.
    """

    def __init__(self, *args, adapter_only: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if '://' in str(self.out_dir or ''):
            raise ValueError(f'checkpoints are written to local folders only, out_dir is {self.out_dir}')
        self.adapter_only = adapter_only
        self.saved_at: int | None = None

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if self.adapter_only:
            runner.frozen_source = frozen_source(unwrap(runner.model))

    def save_now(self, runner, done: int) -> None:
        """Saves outside the schedule, so that the run can be resumed after ``done`` iterations."""
        if self.saved_at == done and self.save_optimizer:
            return
        meta, step = dict(epoch=runner.epoch, iter=done), done
        # An epoch that is not over: named by iteration, like those of an iteration-based run.
        template = 'iter_{}.pth' if self.by_epoch or '{}' not in self.filename_tmpl else self.filename_tmpl
        settings = dict(by_epoch=False, filename_tmpl=template, save_optimizer=True, save_param_scheduler=True)
        kept = {name: getattr(self, name) for name in settings}
        vars(self).update(settings)
        try:
            self._save_checkpoint_with_step(runner, step, meta)
        finally:
            vars(self).update(kept)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        with self._removing_later():
            super()._save_checkpoint_with_step(runner, step, meta)
            self.saved_at = meta['iter']
            if is_main_process():
                # MMEngine has written it too, but not so that a power cut leaves it whole.
                write_text(self.last_ckpt, Path(runner.work_dir, POINTER))

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        with self._removing_later():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_later(self) -> Iterator[None]:
        """Runs its body, then the removals it asked for; none of them if it fails."""
        backend = self.file_backend
        if isinstance(backend, LateRemoval):  # inside another call already
            yield
            return
        self.file_backend = late = LateRemoval(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        newest = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for path in late.asked:
            if path not in newest:
                backend.remove(path)


class LateRemoval:
    """A file backend that notes which files are to be removed, instead of removing them.

    Args:
        backend: The one that does all else.
    """

    def __init__(self, backend: object) -> None:
        self.backend = backend
        self.asked: list[str] = []

    def remove(self, path: str) -> None:
        self.asked.append(path)

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

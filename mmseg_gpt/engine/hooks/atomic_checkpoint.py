"""Saving a run: MMEngine's checkpoint hook, but old checkpoints are removed only after the new one is written."""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import HOOKS

from ...adapters import frozen_source, unwrap
from ...files import UNFINISHED, replacing
from ..resume import NONE_YET, POINTER


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook with another order: write, name the newest in ``last_checkpoint``, remove the old.

    MMEngine 0.10.7 removes first, so that a run killed while saving can lose every checkpoint it had.

    Args:
        adapter_only: Leave the frozen ViT out of checkpoints. What is left are prompts, gates, temperatures and heads,
            and the optimizer's state of them. To load them the pretrained file is needed again, see
            :mod:`mmseg_gpt.adapters`.
        **kwargs: The other arguments of ``mmengine.hooks.CheckpointHook``. ``out_dir`` must be a local folder.

    Raises:
        ValueError: ``out_dir`` is not a local folder, or ``adapter_only`` is used together with EMAHook.
    """

    def __init__(self, *args, adapter_only: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if '://' in str(self.out_dir or ''):
            raise ValueError(f'checkpoints are written to local folders only, out_dir is {self.out_dir}')
        self.adapter_only = adapter_only
        self.saved_at: int | None = None

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.kept = list(runner.message_hub.runtime_info.get('kept_checkpoints', []))
        self._prune()  # a run that was killed may have left too many
        if is_main_process():
            for folder in {Path(self.out_dir), Path(runner.work_dir)}:
                for unfinished in folder.glob(f'*.pth*{UNFINISHED}'):  # of this run alone, see sole_training
                    unfinished.unlink()
            self._point_to_start(runner)
        if self.adapter_only:
            if any(isinstance(hook, EMAHook) for hook in runner.hooks):
                raise ValueError('adapter_only does not go with EMAHook, whose averages hold the whole ViT')
            if is_main_process():  # which alone saves
                runner.frozen_source = frozen_source(unwrap(runner.model))

    def save_now(self, runner, epoch: int, done: int) -> None:
        """Saves outside the schedule, so that the run can go on from here.

        Args:
            runner: The runner, in training.
            epoch: The epoch to go on in, counted from 0.
            done: The number of iterations that are done.
        """
        if self.saved_at == done and self.save_optimizer:
            return
        meta = dict(epoch=epoch, iter=done)
        # An epoch that is not over: named by iteration, like those of an iteration-based run.
        template = 'iter_{}.pth' if self.by_epoch or '{}' not in self.filename_tmpl else self.filename_tmpl
        settings = dict(by_epoch=False, filename_tmpl=template, save_optimizer=True, save_param_scheduler=True)
        kept = {name: getattr(self, name) for name in settings}
        vars(self).update(settings)
        try:
            self._save_checkpoint_with_step(runner, done, meta)
        finally:
            vars(self).update(kept)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        if name not in self.kept:
            self.kept.append(name)
        self.last_ckpt = str(Path(self.out_dir, name))
        # Those that are about to be removed are still in the list: a run that is killed now removes them when resumed.
        runner.message_hub.update_info('kept_checkpoints', list(self.kept))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, name, save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler,
            meta=meta, by_epoch=self.by_epoch, **self.args)
        self.saved_at = meta['iter']
        if is_main_process():
            self._point(runner, self.last_ckpt)
        self._prune()

    def _point_to_start(self, runner) -> None:
        """Lets ``last_checkpoint`` name what this run goes on from, and nothing where it is started over.

        Killed before it saves, it would else go on from the last checkpoint of the run that was there before.
        """
        resumed = Path(runner._load_from) if runner._resume and runner._load_from else None
        if Path(runner.work_dir, POINTER).is_file() and (resumed or not runner.iter):
            is_here = resumed and resumed.parent.resolve() == Path(self.out_dir).resolve()
            self._point(runner, str(Path(self.out_dir, resumed.name)) if is_here else NONE_YET)

    def _point(self, runner, text: str) -> None:
        """Writes ``last_checkpoint``."""
        with replacing(Path(runner.work_dir, POINTER)) as pointer:
            pointer.write_text(text)

    def _prune(self) -> None:
        """Removes the oldest checkpoints beyond ``max_keep_ckpts``."""
        while 0 < self.max_keep_ckpts < len(self.kept):
            old = Path(self.out_dir, self.kept.pop(0))
            if is_main_process():
                old.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best:
            return  # the backend is not there yet where a validation is not part of a training
        backend = self.file_backend
        self.file_backend = late = LateRemoval(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in late.asked:
            # A file in another folder belongs to the run that this one was resumed from.
            if path not in best and Path(path).parent == Path(self.out_dir):
                backend.remove(path)


class LateRemoval:
    """A file backend that remembers which files are to be removed, instead of removing them.

    Args:
        backend: The file backend that does everything else.
    """

    def __init__(self, backend: object) -> None:
        self.backend = backend
        self.asked: list[str] = []

    def remove(self, path: str) -> None:
        self.asked.append(path)

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

"""The validation that was due when a run was interrupted."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Makes the validation first that was due where a resumed run was saved, unless its checkpoint knows of it.

    Checkpoints are written before the validation of their iteration, and a signal ends a validation. MMEngine goes on
    with the next iteration: what decides by the scores of validations, such as which checkpoint is kept as the best,
    would not decide as in a run that was not interrupted.
    """

    priority = 'LOWEST'  # after the hooks that prepare for validations, and the one that saves at a signal

    def before_train(self, runner) -> None:
        known = runner.message_hub.runtime_info.get('validated')
        if runner.val_loop is not None and known != runner.iter and is_due(runner.train_loop):
            runner.logger.info(f'the validation after {runner.iter} iterations is made first')
            runner.val_loop.run()

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None) -> None:
        # After the epoch would be too late: with a new best score, the checkpoint is written again there.
        if batch_idx + 1 == len(runner.val_dataloader):
            runner.message_hub.update_info('validated', runner.iter)


def is_due(loop: object) -> bool:
    """Returns whether a training loop, of one of MMEngine's kinds, would validate where it stands."""
    if isinstance(loop, EpochBasedTrainLoop):
        done, last = loop.epoch, loop.max_epochs
        if loop.iter != done * len(loop.dataloader):  # inside an epoch
            return False
    elif isinstance(loop, IterBasedTrainLoop):
        done, last = loop.iter, loop.max_iters
    else:
        return False
    loop._decide_current_val_interval()
    return done >= max(1, loop.val_begin) and (done % loop.val_interval == 0 or done == last)

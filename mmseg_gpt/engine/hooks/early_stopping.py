"""Stopping early, over resumptions."""

import mmengine.hooks
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class EarlyStoppingHook(mmengine.hooks.EarlyStoppingHook):
    """MMEngine's hook of this name, which in a resumed run goes on counting where the checkpoint was written.

    MMEngine 0.10.7 begins anew: a run that is interrupted often enough would never be stopped.
    """

    priority = 'LOW'  # before the checkpoint hook, which writes again at a new best score

    def before_train(self, runner) -> None:
        known = runner.message_hub.runtime_info.get('early_stopping')
        self.best_score, self.wait_count = known or (self.best_score, self.wait_count)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info('early_stopping', (self.best_score, self.wait_count))

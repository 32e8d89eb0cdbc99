"""The progress of a run, for the process that has started it."""

import time
from numbers import Real

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...events import are_wanted, report

SHOWN = ('loss', 'mIoU', 'accuracy/top1')
SECONDS = 0.2  # between two reports of a phase


@HOOKS.register_module()
class ProgressHook(Hook):
    """Reports how far a training, a validation or a test is, and what validations measure; see :mod:`mmseg_gpt.events`.

    Where nobody listens it does nothing. It reports numbers that other hooks have fetched from the device already
    (NonFiniteHook fetches the losses, IterTimerHook estimates the time), so that the device is never waited for.
    """

    priority = 'BELOW_NORMAL'  # after IterTimerHook

    def __init__(self) -> None:
        self.wanted = are_wanted()
        self.reported_at = float('-inf')
        self.scores: dict[str, float] = {}  # of the last validation

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        if self.wanted:
            self.report_progress(runner, 'train', runner.iter + 1, runner.max_iters, self.scores | numbers_in(outputs))

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None) -> None:
        if self.wanted:
            self.report_progress(runner, 'val', batch_idx + 1, len(runner.val_dataloader), {})

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None) -> None:
        if self.wanted:
            self.report_progress(runner, 'test', batch_idx + 1, len(runner.test_dataloader), {})

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        if self.wanted:
            numbers = numbers_in(metrics)
            self.scores = {name: numbers[name] for name in SHOWN if name in numbers}
            report('validated', iteration=runner.iter, metrics=numbers)

    def report_progress(self, runner, phase: str, done: int, total: int, numbers: dict[str, float]) -> None:
        """Reports an iteration, unless another was reported just before; the last of a phase is always reported."""
        now = time.monotonic()
        if now - self.reported_at < SECONDS and done != total:
            return
        self.reported_at = now
        shown = {name: numbers[name] for name in SHOWN if name in numbers}
        left = runner.message_hub.runtime_info.get('eta')
        known = {} if left is None else dict(seconds_left=left)
        report('progress', phase=phase, done=done, total=total, **known, **shown)


def numbers_in(outputs: dict | None) -> dict[str, float]:
    """Returns the numbers among losses or metrics; tensors are left out, as reading one waits for the device."""
    return {name: float(value) for name, value in (outputs or {}).items() if isinstance(value, Real)}

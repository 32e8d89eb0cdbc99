"""What a user sees of a training: how far it is, how long it still takes, and what validations measure."""

import logging
import sys
import time

from mmengine.logging import MMLogger

from ..apis.task import OF_HEADS
from ..engine import Runner
from ..engine.hooks.progress import SHOWN, ProgressHook, numbers_in
from ..wording import duration

EVERY = 30  # seconds between two lines where there is no terminal
PHASES = dict(train='training', val='validating', test='testing')
# Warnings of OpenMMLab that every run has and nobody can act on; all others are shown.
USUAL = ('The prefix is not set in metric class', '"FileClient" will be deprecated', '"HardDiskBackend" is the alias',
         'is skipped since its requires_grad=False', 'The `resume` argument is deprecated', 'Advance dataloader',
         'this run has done all its')
USUAL_WARNINGS = (*OF_HEADS, 'The draw is False')


class QuietRunner(Runner):
    """A runner that writes its log to its file, and only warnings to the terminal."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)
                handler.addFilter(is_unusual)
        return logger


def is_unusual(record: logging.LogRecord) -> bool:
    """Says whether a line of a log is worth the user's attention."""
    message = record.getMessage()
    return not any(words in message for words in USUAL)


class ShowProgressHook(ProgressHook):
    """Shows progress on the terminal, in one line that changes; where there is no terminal, in a line now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = True
        self.changes = sys.stdout.isatty()
        self.shown_at = time.monotonic()

    def report_progress(self, runner, phase: str, done: int, total: int, numbers: dict[str, float]) -> None:
        """Shows an iteration, unless another was shown just before."""
        now = time.monotonic()
        is_last = done == total and (self.changes or phase == 'train')
        if now - self.shown_at < (0.2 if self.changes else EVERY) and not is_last:
            return
        self.shown_at = now
        left = runner.message_hub.runtime_info.get('eta')
        words = [f'{PHASES[phase]} {done} of {total}', *(f'{name} {numbers[name]:.3g}' for name in SHOWN
                                                         if name in numbers)]
        if left is not None and done < total:
            words.append(f'{duration(left)} left')
        line = ', '.join(words)
        if self.changes:
            print(f'\r{line:<100}', end='' if done < total else '\r', flush=True)
        else:
            print(line, flush=True)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        numbers = numbers_in(metrics)
        self.scores = {name: numbers[name] for name in SHOWN if name in numbers}
        said = ', '.join(f'{name} {value:.2f}' for name, value in self.scores.items())
        line = f'after {runner.iter} iterations: {said} (validation)'
        print(f'\r{line:<100}' if self.changes else line, flush=True)

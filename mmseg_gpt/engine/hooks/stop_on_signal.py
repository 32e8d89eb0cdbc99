"""Saving and ending a run when it is asked to stop."""

import multiprocessing
import os
import signal
import threading

import torch
from mmengine.dist import all_reduce, barrier
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import EpochBasedTrainLoop

from ..optimizer import accumulated_iterations
from .atomic_checkpoint import AtomicCheckpointHook

# Shared with forked workers: whether the main process wants to go on after a signal to all processes.
wants_workers = multiprocessing.RawValue('b', False)


@FUNCTIONS.register_module()
def leave_signals_to_the_main_process(worker_id: int) -> None:
    """Lets a data loader's worker live on when Ctrl-C or a scheduler signals all processes of a run.

    Without its workers the main process would not get as far as saving. Outside a run, and at its end, SIGTERM ends
    them as usual, with the status 0 that torch gives a worker it ends; if the main process dies, they end on their own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None if wants_workers.value else os._exit(0))


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves and ends the run when the process gets SIGTERM, SIGINT (Ctrl-C) or SIGUSR2, as schedulers expect.

    The exit status is 128 + signal, so that a scheduler does not take the run for finished. A single process stops
    after the iteration in which the signal comes, and at once when a second one comes; SIGUSR2, which schedulers send
    to whoever asks for a warning, is a request that can be repeated. Several processes stop together,
    after the next iteration that all of them begin knowing of the signal. Where gradients accumulate, or an epoch is
    about to end, that is finished first.
    """

    priority = 'LOWEST'  # after the checkpoint hook
    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

    def __init__(self) -> None:
        self.received = self.agreed = 0
        self.former: dict = {}

    def before_train(self, runner) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread handle signals

        def handle(number: int, frame: object) -> None:
            self.received = number
            once = not runner.distributed and number != signal.SIGUSR2
            again = b'; the same again stops at once' if once else b''
            os.write(2, b'stopping: the run is saved first' + again + b'\n')  # a log may be in the middle of a line
            if once:  # torchrun passes on what a terminal has sent to all already
                self.restore_handlers(signal.SIGTERM, signal.SIGINT)

        # What is ignored already, as Ctrl-C is in what a shell runs in the background, stays ignored.
        self.former = {number: signal.signal(number, handle) for number in self.SIGNALS
                       if signal.getsignal(number) not in (signal.SIG_IGN, None)}
        wants_workers.value = True

    def release(self, runner) -> None:
        """Undoes what :meth:`before_train` did, also after an error."""
        self.restore_handlers(*self.SIGNALS)
        wants_workers.value = False

    def restore_handlers(self, *numbers: int) -> None:
        """Puts the former handlers of some signals back."""
        for number in self.former.keys() & {*numbers}:
            signal.signal(number, self.former.pop(number))

    def vote(self, runner, data_batch: dict | None) -> int:
        """Returns the signal that this process has got, or 0; see :class:`AgreeHook`."""
        return self.received

    def decide(self, runner, data_batch: dict | None, number: int) -> None:
        """Remembers the signal that any process has got, until the iteration is done."""
        self.agreed = number

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        done = runner.iter + 1
        number = self.agreed if runner.distributed else self.received
        accumulating = done % accumulated_iterations(runner.optim_wrapper) and done < runner.max_iters
        if number and not accumulating and not ends_epoch(runner, done):
            self.save_and_stop(runner, number, runner.epoch, done)

    def after_train_epoch(self, runner) -> None:
        number = self.received_anywhere(runner)
        if number and isinstance(runner.train_loop, EpochBasedTrainLoop):
            self.save_and_stop(runner, number, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None) -> None:
        # Between processes a validation is not in step: there it is finished first.
        if self.received and not runner.distributed:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)  # it validates its averages in the place of the weights
            runner.logger.warning('the validation is not finished; --resume makes it first')
            self.save_and_stop(runner, self.received, runner.epoch, runner.iter)

    def received_anywhere(self, runner) -> int:
        """Returns the signal that any process has got, or 0: the same answer in all of them."""
        received = torch.tensor(self.received)
        if runner.distributed:
            all_reduce(received, 'max')
        return int(received)

    def save_and_stop(self, runner, number: int, epoch: int, done: int) -> None:
        """Writes a checkpoint that can be resumed, closes the logs, and leaves."""
        name = signal.Signals(number).name
        for hook in runner.hooks:
            if isinstance(hook, AtomicCheckpointHook):
                hook.save_now(runner, epoch, done)
                runner.logger.warning(f'stopped by {name} after iteration {done}, saved in {hook.last_ckpt}; '
                                      '--resume goes on from there')
        barrier()  # torchrun kills the process that writes soon after another has ended
        self.release(runner)
        runner.call_hook('after_run')
        raise SystemExit(128 + number)


def ends_epoch(runner, done: int) -> bool:
    """Returns whether iteration ``done`` ends an epoch that the loop counts, so that more hooks are to follow."""
    loop = runner.train_loop
    return isinstance(loop, EpochBasedTrainLoop) and done % len(loop.dataloader) == 0

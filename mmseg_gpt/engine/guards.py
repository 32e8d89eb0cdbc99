"""Hooks that stop a run before it goes wrong silently, or when it is asked to stop."""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque

import torch
from mmengine.dist import all_reduce, barrier, broadcast, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import EpochBasedTrainLoop

from ..adapters import unwrap
from ..datasets import batch_is_ignored
from ..wording import listed
from .checkpointing import AtomicCheckpointHook


class RunStopped(RuntimeError):
    """A guard has ended the run; the message says why, and what to do."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops the run at the first loss or gradient that is not finite, before the weights are touched.

    MMEngine goes on with NaN in nearly every weight, lets good checkpoints rotate away, and prints an mIoU. With
    float16 loss scaling, where infinite gradients now and then are normal and their steps are skipped, it is too many
    skipped steps in a row that end the run.

    Args:
        max_skipped_steps: How many steps in a row loss scaling may skip.

    Raises:
        RunStopped: naming the iteration, the parameters and the images.
    """

    priority = 'HIGHEST'  # before the hooks that would fetch the losses one by one

    def __init__(self, max_skipped_steps: int = 50) -> None:
        self.max_skipped_steps = max_skipped_steps
        self.skipped = 0
        self.handles: list = []

    def before_train(self, runner) -> None:
        wrapper = runner.optim_wrapper
        wrappers = optimizer_wrappers(wrapper)
        self.scaled = any(isinstance(w, AmpOptimWrapper) and w.loss_scaler.is_enabled() for w in wrappers)
        self.accumulated = accumulated_iterations(wrapper)
        self.images = deque(maxlen=self.accumulated)  # of each iteration that the next step will be of
        self.names = {id(p): name for name, p in unwrap(runner.model).named_parameters()}
        for w in wrappers:
            self.handles.append(w.optimizer.register_step_pre_hook(
                lambda optimizer, args, kwargs: self.check_gradients(runner, optimizer)))

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.images.append(image_files(data_batch))

    def check_gradients(self, runner, optimizer: torch.optim.Optimizer) -> None:
        """Looks at the gradients just before a step."""
        if bool(getattr(optimizer, 'found_inf', None)):
            return  # a fused optimizer, which skips steps of scaled losses by itself; others are not called then
        self.skipped = -1  # after_train_iter counts this iteration
        gradients = {id(p): p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None}
        if not gradients or torch.nn.utils.get_total_norm(list(gradients.values())).isfinite():
            return
        broken = [self.names.get(key, '?') for key, gradient in gradients.items() if not gradient.isfinite().all()]
        if not broken:
            return  # large numbers, whose squares overflow
        self.stop(runner, f'the gradient is not finite in {len(broken)} of {len(gradients)} trained tensors '
                  f'({listed(broken, 4)})')

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        numbers = fetch_numbers(outputs or {})
        self.skipped += 1
        if self.scaled:
            if self.skipped > self.max_skipped_steps * self.accumulated:
                self.stop(runner, f'loss scaling has skipped more than {self.max_skipped_steps} steps in a row')
            return
        broken = {name: number for name, number in numbers.items() if not math.isfinite(number)}
        if broken:
            self.stop(runner, f'not finite: {broken}')

    def release(self, runner) -> None:
        """Undoes what :meth:`before_train` did, also after an error."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def stop(self, runner, reason: str) -> None:
        """Raises, with all that helps to find the cause."""
        images = [image for batch in self.images for image in batch]
        saved = runner.message_hub.runtime_info.get('last_ckpt')
        clipping = '--cfg-options optim_wrapper.clip_grad.max_norm=1'
        advice = (f'The last checkpoint is {saved}. A resumed run comes to the same images: clip its gradients, with '
                  f'--resume {clipping}; or start a new run with a smaller learning rate.' if saved else
                  f'Nothing was saved yet: start again with a smaller learning rate, or with {clipping}.')
        raise RunStopped(
            f'stopped at iteration {runner.iter + 1}: {reason}.\n'
            f'Images of this step: {", ".join(images) or "unknown"}\n'
            'The usual causes are a learning rate that is too large, --amp fp16 (bf16 has a wider range), or one of '
            f'these images or labels.\n{advice}')


@HOOKS.register_module()
class AgreeHook(Hook):
    """Lets all processes know, with one exchange an iteration, what the hooks of each have to say.

    Every hook with ``say(runner, data_batch)``, which returns an integer, is told the highest of all processes before
    the iteration, with ``hear(runner, data_batch, highest)``.
    """

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        speakers = [hook for hook in runner.hooks if hasattr(hook, 'say')]
        said = [hook.say(runner, data_batch) for hook in speakers]
        if get_world_size() > 1:
            numbers = torch.tensor(said)
            all_reduce(numbers, 'max')
            said = numbers.tolist()
        for hook, highest in zip(speakers, said):
            hook.hear(runner, data_batch, highest)


@HOOKS.register_module()
class IgnoredBatchHook(Hook):
    """Stops the run at a batch of which, over all processes, no pixel is labelled: its loss is 0, and teaches nothing.

    Args:
        stop: False only warns, for data of which that is to be expected.

    Raises:
        RunStopped: naming the images.
    """

    def __init__(self, stop: bool = True) -> None:
        self.stop = stop

    def say(self, runner, data_batch: dict | None) -> int:
        """1 if this process can learn from its share of the batch."""
        head = getattr(unwrap(runner.model), 'decode_head', None)
        return int(not batch_is_ignored(samples_of(data_batch), getattr(head, 'ignore_index', 255)))

    def hear(self, runner, data_batch: dict | None, labelled: int) -> None:
        """Stops if no process can."""
        if labelled:
            return
        said = (f'iteration {runner.iter + 1}: every pixel of this batch is ignored, so there is nothing to learn from '
                f'it. Images: {", ".join(image_files(data_batch))}')
        if not self.stop:
            runner.logger.warning(said)
            return
        raise RunStopped(
            f'stopped at {said}\nAre the label maps the right ones, and reduce_zero_label as they need? If such images '
            'are normal here, add dict(type="IgnoredBatchHook", stop=False) to custom_hooks, and --resume.')


@HOOKS.register_module()
class SameBuffersHook(Hook):
    """Gives every process the buffers of the first before a validation, as a checkpoint saves them.

    The running statistics of plain BN differ between processes, so that the reported mIoU would be that of no
    checkpoint.
    """

    def before_val_epoch(self, runner) -> None:
        for buffer in runner.model.buffers() if get_world_size() > 1 else ():
            broadcast(buffer, src=0)


# Shared with forked workers: whether the main process wants to go on after a signal to all processes.
wants_workers = multiprocessing.RawValue('b', False)


@FUNCTIONS.register_module()
def leave_signals_to_the_main_process(worker_id: int) -> None:
    """Lets a data loader's worker live on when Ctrl-C or a scheduler signals all processes of a run.

    Without its workers the main process could not come to save. Outside a run, and at its end, SIGTERM ends them as
    usual, with the status 0 that torch gives a worker it ends; if the main process dies, they end by themselves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None if wants_workers.value else os._exit(0))


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves and ends the run when the process gets SIGTERM or SIGINT (Ctrl-C), as schedulers expect.

    All processes stop at the same iteration, and with the exit status 128 + signal, so that a scheduler does not take
    the run for finished. It is the next iteration that all of them begin with the signal, and at which nothing is under
    way: gradients that accumulate, or an epoch that is about to end. In a single process it is the one that the signal
    comes in, and a second signal ends the run at once.
    """

    priority = 'LOWEST'  # after the checkpoint hook
    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received = self.agreed = 0
        self.former: dict = {}

    def before_train(self, runner) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread handle signals

        def handle(number: int, frame: object) -> None:
            self.received = number
            again = b'' if runner.distributed else b'; the same again stops at once'
            os.write(2, b'stopping: the run is saved first' + again + b'\n')  # a log may be in the middle of a line
            if not runner.distributed:  # torchrun passes on what a terminal has sent to all already
                self.restore_handlers()

        # What is ignored already, as Ctrl-C is in what a shell runs in the background, stays ignored.
        self.former = {number: signal.signal(number, handle) for number in self.SIGNALS
                       if signal.getsignal(number) not in (signal.SIG_IGN, None)}
        wants_workers.value = True

    def release(self, runner) -> None:
        """Undoes what :meth:`before_train` did, also after an error."""
        self.restore_handlers()
        wants_workers.value = False

    def restore_handlers(self) -> None:
        """Puts the former handlers back."""
        for number, handler in self.former.items():
            signal.signal(number, handler)
        self.former = {}

    def say(self, runner, data_batch: dict | None) -> int:
        """The signal that this process has got, or 0."""
        return self.received

    def hear(self, runner, data_batch: dict | None, number: int) -> None:
        """Keeps the signal that any process has got, until the iteration is done."""
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
            runner.logger.warning('the validation is not finished; tools/test.py repeats it from the checkpoint')
            self.save_and_stop(runner, self.received, runner.epoch, runner.iter)

    def received_anywhere(self, runner) -> int:
        """The signal that any process has got, or 0: the same answer in all of them."""
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
    """Whether iteration ``done`` is the last of an epoch that the loop counts, so that more hooks are to follow."""
    loop = runner.train_loop
    return isinstance(loop, EpochBasedTrainLoop) and done % len(loop.dataloader) == 0


def optimizer_wrappers(wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """The wrapper of each optimizer."""
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def accumulated_iterations(wrapper: OptimWrapper | OptimWrapperDict) -> int:
    """The iterations of one optimizer step."""
    return max(each._accumulative_counts for each in optimizer_wrappers(wrapper))


@torch.no_grad()
def fetch_numbers(outputs: dict) -> dict[str, float]:
    """Replaces the losses of an iteration by Python's numbers, so that the device is waited for once, and gives them.

    Args:
        outputs: What a model's ``train_step`` has returned; MMEngine logs tensors of one element.
    """
    tensors = {name: value for name, value in outputs.items() if torch.is_tensor(value) and value.numel() == 1}
    if tensors:
        device = next(iter(tensors.values())).device
        together = torch.cat([value.reshape(1).to(device, torch.float64) for value in tensors.values()])  # exact
        outputs.update(zip(tensors, together.tolist()))
    return {name: outputs[name] for name in tensors}


def samples_of(batch: object) -> list:
    """The data samples of a batch of mmsegmentation or mmpretrain; of others, none."""
    return batch.get('data_samples') or [] if isinstance(batch, dict) else []


def image_files(batch: object) -> list[str]:
    """The image files of a batch."""
    return [path for sample in samples_of(batch) if (path := getattr(sample, 'img_path', None))]

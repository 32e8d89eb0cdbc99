"""A guard against numbers that are not finite."""

import math
from collections import deque

import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ...adapters import unwrap
from ...wording import listed
from ..errors import RunStopped
from ..loaders import image_files
from ..optimizer import accumulated_iterations, optimizer_wrappers
from ..to_host import to_host


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops the run at the first loss or gradient that is not finite, before the weights are touched.

    MMEngine goes on with NaN in nearly every weight, lets good checkpoints rotate away, and prints an mIoU. With
    float16 loss scaling, where infinite gradients now and then are normal and their steps are skipped, it is too many
    skipped steps in a row that end the run.

    Args:
        max_skipped_steps: How many steps in a row loss scaling may skip.

    Raises:
        RunStopped: with the code 'not-finite' or 'loss-scaling'; the message names the iteration, the parameters and
            the images.
    """

    priority = 'HIGHEST'  # before the hooks that would fetch the losses one by one

    def __init__(self, max_skipped_steps: int = 50) -> None:
        self.max_skipped_steps = max_skipped_steps
        self.skipped = 0
        self.handles: list = []
        self.watched: nn.Module | None = None

    def before_train(self, runner) -> None:
        wrapper = runner.optim_wrapper
        wrappers = optimizer_wrappers(wrapper)
        self.scaled = any(isinstance(w, AmpOptimWrapper) and w.loss_scaler.is_enabled() for w in wrappers)
        self.accumulated = accumulated_iterations(wrapper)
        self.images = deque(maxlen=self.accumulated)  # files of the iterations accumulated into the next step
        self.names = {id(p): name for name, p in unwrap(runner.model).named_parameters()}
        self.remember_losses(unwrap(runner.model))
        # A SweepModel looks at the gradients of all heads itself; what scales losses skips steps that are not finite.
        checked = getattr(unwrap(runner.model), 'checks_gradients', False) and not self.scaled
        for w in [] if checked else wrappers:
            self.handles.append(w.optimizer.register_step_pre_hook(
                lambda optimizer, args, kwargs: self.check_gradients(runner, optimizer)))

    def remember_losses(self, model: nn.Module) -> None:
        """Keeps the losses that a model is about to report, so that they are fetched together with the gradients."""
        self.losses: dict = {}
        if not hasattr(model, 'parse_losses'):
            return
        parse, self.watched = model.parse_losses, model

        def parse_losses(losses: dict) -> tuple[torch.Tensor, dict]:
            total, self.losses = parse(losses)
            return total, self.losses

        model.parse_losses = parse_losses

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.images.append(image_files(data_batch))

    def check_gradients(self, runner, optimizer: torch.optim.Optimizer) -> None:
        """Stops the run if a gradient is not finite, just before a step."""
        if bool(getattr(optimizer, 'found_inf', None)):
            return  # a fused optimizer, which skips steps of scaled losses by itself; others are not called then
        self.skipped = -1  # after_train_iter counts this iteration
        gradients = {id(p): p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None}
        if not gradients:
            return
        norm = torch.nn.utils.get_total_norm(list(gradients.values()))
        if math.isfinite(fetch_numbers(self.losses, gradient_norm=norm)['gradient_norm']):
            return
        broken = [self.names.get(key, '?') for key, gradient in gradients.items() if not gradient.isfinite().all()]
        if not broken:
            return  # all are finite: only the norm overflowed
        self.stop(runner, 'not-finite', f'the gradient is not finite in {len(broken)} of {len(gradients)} trained '
                  f'tensors ({listed(broken, 4)})')

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        fetch_numbers(outputs or {})
        self.losses = {}
        self.skipped += 1
        if self.scaled:
            if self.skipped > self.max_skipped_steps * self.accumulated:
                self.stop(runner, 'loss-scaling',
                          f'loss scaling has skipped more than {self.max_skipped_steps} steps in a row')
            return
        broken = {name: number for name, number in (outputs or {}).items()
                  if isinstance(number, float) and not math.isfinite(number)}
        if broken:
            self.stop(runner, 'not-finite', f'not finite: {broken}')

    def release(self, runner) -> None:
        """Undoes what :meth:`before_train` did, also after an error."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        if self.watched is not None:
            del self.watched.parse_losses  # what hides that of its class
            self.watched = None

    def stop(self, runner, code: str, reason: str) -> None:
        """Raises a RunStopped with all that helps to find the cause."""
        images = [image for batch in self.images for image in batch]
        saved = runner.message_hub.runtime_info.get('last_ckpt')
        clipping = '--cfg-options optim_wrapper.clip_grad.max_norm=1'
        advice = (f'The last checkpoint is {saved}. A resumed run comes to the same images: clip its gradients, with '
                  f'--resume {clipping}; or start a new run with a smaller learning rate.' if saved else
                  f'Nothing was saved yet: start again with a smaller learning rate, or with {clipping}.')
        raise RunStopped(
            code, f'stopped at iteration {runner.iter + 1}: {reason}.\n'
            f'Images of this step: {", ".join(images) or "unknown"}\n'
            'The usual causes are a learning rate that is too large, --amp fp16 (bf16 has a wider range), or one of '
            f'these images or labels.\n{advice}')


def fetch_numbers(outputs: dict, **others: Tensor) -> dict[str, float]:
    """Replaces the losses of an iteration by Python's numbers, so that the device is waited for once.

    Args:
        outputs: What a model's ``train_step`` returns; MMEngine logs tensors of one element.
        **others: Further tensors of one element.

    Returns:
        The losses that were tensors, and the others, as numbers.
    """
    tensors = {name: value for name, value in outputs.items() if torch.is_tensor(value) and value.numel() == 1}
    numbers = {name: values[0] for name, values in to_host(tensors | others).items()}
    outputs.update((name, numbers[name]) for name in tensors)
    return numbers

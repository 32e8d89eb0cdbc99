"""Numbers of a run while it trains, for MMEngine's visualizer: what it learns, and how fast."""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ...adapters import unwrap
from ...analysis.gates import selection_ratio, sigmoid
from ...environment import peak_resident_bytes
from ...models import GatedPromptViT
from ..loaders import samples_of
from ..optimizer import accumulated_iterations, optimizer_wrappers
from ..to_host import to_host

MEBIBYTE = 2**20


@HOOKS.register_module()
class TrackingHook(Hook):
    """Gives the visualizer, and not the text log, numbers that show what is learnt and how fast the run goes on.

    It only watches: nothing that is trained depends on it. The numbers are

    * ``gates/block_01`` (the probability to be open, where gates are hard), ``selection_ratio/block_01`` and
      ``temperatures/block_01``, for each block that has one, counted from 1. They are given once more before the first
      iteration of a run that is not resumed. That line is written even where it is empty, since it tells a reader of
      the log that lines before it belong to an earlier run.
    * ``gradient_norm/prompts``, ``gates``, ``temperatures``, ``head`` and ``vit``, for those that are trained: norms of
      the gradients as the optimizer gets them, after clipping.
    * ``progress/images_per_second`` of all processes since the last time; ``progress/peak_memory_mib`` of the first
      process until now (what torch has allocated on a GPU for training, else what was resident); and
      ``progress/seconds_left``.

    Args:
        interval: The number of iterations from one time to the next; the last iteration always counts. None takes the
            interval of LoggerHook.

    Raises:
        ValueError: there is neither an interval nor a LoggerHook.
    """

    priority = 'NORMAL'  # after the timer; before LoggerHook, which lets a GPU forget the peak of its memory

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self.due = False
        self.logged: list[int] = []  # intervals of LoggerHook
        self.images = self.iterations = self.peak = 0
        self.norms: dict[str, Tensor] = {}
        self.handles: list = []

    def before_train(self, runner) -> None:
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.logged, self.interval = intervals, self.interval or next(iter(intervals), None)
        if not self.interval:
            raise ValueError('TrackingHook needs an interval, as there is no LoggerHook to take it from')
        if not is_main_process():
            return
        model = unwrap(runner.model)
        self.backbone = getattr(model, 'backbone', None)
        self.groups = {id(p): group_of(name) for name, p in model.named_parameters()}
        self.accumulates = accumulated_iterations(runner.optim_wrapper) > 1
        for wrapper in optimizer_wrappers(runner.optim_wrapper):
            self.handles.append(wrapper.optimizer.register_step_pre_hook(
                lambda optimizer, args, kwargs: self.measure_gradients(optimizer)))
        if runner.iter == 0:
            tell(runner, 0, learnt(self.backbone, {}))

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        short_epoch = len(runner.train_dataloader) <= self.interval  # as LoggerHook does
        self.due = is_main_process() and (
            self.every_n_inner_iters(batch_idx, self.interval) or self.is_last_train_iter(runner) or
            (short_epoch and self.end_of_epoch(runner.train_dataloader, batch_idx)))

    def measure_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the norms just before a step; where gradients accumulate, any step may be the last before logging."""
        if self.due or self.accumulates:
            self.norms |= gradient_norms(optimizer, self.groups)

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        self.iterations += 1
        self.images += len(samples_of(data_batch))
        if self.due or self.is_forgotten(runner, batch_idx):
            self.note_peak()
        if self.due:
            tell(runner, runner.iter + 1, {**learnt(self.backbone, self.norms),
                                           **progress(runner, self.images, self.iterations, self.peak)})
            self.images = self.iterations = 0
            self.norms = {}

    def is_forgotten(self, runner, batch_idx: int) -> bool:
        """Returns whether LoggerHook, which comes after this one, is about to let the GPU forget its peak."""
        return bool(self.logged) and (self.end_of_epoch(runner.train_dataloader, batch_idx) or any(
            self.every_n_inner_iters(batch_idx, interval) for interval in self.logged))

    def note_peak(self) -> None:
        """Notes how much memory training has taken on a GPU; asking for it takes the host longer than a hook should."""
        if torch.cuda.is_available():
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())

    def before_val(self, runner) -> None:
        self.note_peak()

    def after_val(self, runner) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # the peak is to be that of training

    def release(self, runner) -> None:
        """Undoes what :meth:`before_train` did, also after an error."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


def learnt(backbone: nn.Module | None, norms: dict[str, Tensor]) -> dict[str, float]:
    """Returns gates, selection ratios, temperatures and norms of gradients, waiting for the device once."""
    start, used = adapters_in_use(backbone)
    numbers = to_host({**used, **norms})
    scalars = {}
    if 'gates' in used:
        gates = sigmoid(np.array(numbers['gates']))
        scalars |= by_block('gates', gates, start)
        scalars |= by_block('selection_ratio', selection_ratio(gates), start) if gates.any() else {}
    if 'temperatures' in used:
        scalars |= by_block('temperatures', numbers['temperatures'], 1)
    return scalars | {name: numbers[name][0] for name in norms}


def progress(runner, images: int, iterations: int, allocated: int) -> dict[str, float]:
    """Returns throughput, memory and the time left.

    Args:
        runner: The runner, in training.
        images: The number of images this process has trained on since the last time.
        iterations: The number of iterations since the last time.
        allocated: The most memory that torch has had on the GPU so far, in bytes.
    """
    peak = allocated if torch.cuda.is_available() else peak_resident_bytes()
    scalars = {'progress/peak_memory_mib': peak / MEBIBYTE}
    seconds = runner.message_hub.log_scalars.get('train/time')  # of IterTimerHook
    if seconds is not None and images:
        scalars['progress/images_per_second'] = images / iterations / seconds.mean(iterations) * get_world_size()
    if 'eta' in runner.message_hub.runtime_info:
        scalars['progress/seconds_left'] = runner.message_hub.get_info('eta')
    return scalars


def group_of(parameter: str) -> str:
    """Returns the group that a parameter's gradient counts in, by the parameter's name in the model."""
    where, _, name = parameter.partition('.')
    if where == 'members':  # of a sweep, counted from 1
        return f'head_{int(name.partition(".")[0]) + 1}'
    if where != 'backbone':
        return 'head'
    if name == 'prompt.gate_prior':
        return 'gates'
    return 'prompts' if name.startswith('prompt.') else 'temperatures' if name == 'temperature' else 'vit'


def gradient_norms(optimizer: torch.optim.Optimizer, groups: dict[int, str]) -> dict[str, Tensor]:
    """Computes the norm of the gradients of each group of parameters, without waiting for the device.

    Args:
        optimizer: The optimizer, about to make a step.
        groups: The group of each parameter, by the parameter's id.
    """
    gradients = defaultdict(list)
    for parameter in (p for group in optimizer.param_groups for p in group['params'] if p.grad is not None):
        gradients[groups[id(parameter)]].append(parameter.grad)
    scale = getattr(optimizer, 'grad_scale', None)  # of a fused optimizer, which divides by it in its step
    norms = {f'gradient_norm/{name}': nn.utils.get_total_norm(tensors) for name, tensors in gradients.items()}
    return norms if scale is None else {name: norm / scale for name, norm in norms.items()}


def adapters_in_use(backbone: nn.Module | None) -> tuple[int, dict[str, Tensor]]:
    """Returns gate priors and temperatures of the blocks that use them.

    Returns:
        tuple: The block of the first gate, counted from 1; and 'gates' (G,) and 'temperatures' (T,), if there are any.
    """
    if not isinstance(backbone, GatedPromptViT):
        return 1, {}
    start, last = backbone.start_block, max(backbone.out_indices)
    used = {}
    if hasattr(backbone.prompt, 'gate_prior') and start < last:
        used['gates'] = backbone.prompt.gate_prior[start:last]
    if backbone.temperature is not None:
        used['temperatures'] = backbone.temperature[:last + 1]
    return start + 1, used


def by_block(quantity: str, values: Iterable[float], first: int) -> dict[str, float]:
    """Names the values of a quantity by their blocks, from block ``first`` on."""
    return {f'{quantity}/block_{block:02d}': float(value) for block, value in enumerate(values, first)}


def tell(runner, iteration: int, scalars: dict[str, float]) -> None:
    """Gives the visualizer those of the scalars that are finite."""
    scalars = {name: value for name, value in scalars.items() if math.isfinite(value)}
    runner.visualizer.add_scalars({**scalars, 'iter': iteration}, step=iteration)

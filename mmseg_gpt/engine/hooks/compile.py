"""The blocks of the ViT and the heads, compiled."""

import logging
from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch._functorch import config as functorch_config

from ...adapters import unwrap
from ...models import GatedPromptViT
from ...models.sync_batch_norm import SyncBatchNorm


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the blocks of the ViT, and heads that gain by it, with ``torch.compile``: ``--compile``.

    The number of images and of tokens stays open, so that images of another size are not compiled for again. Dropout
    draws what it draws without compiling. Weights, names and checkpoints are untouched, so a run can be resumed with it
    or without. What cannot be compiled goes on as usual, and the log says why.

    The SETR-PUP heads stay as they are: they make features again in the backward, which torch would keep, and most of
    their time is in convolutions. So do heads with batch norm over several processes.

    Args:
        backend: torch's name of what compiles, or a function; None for its default.
        heads: Whether to compile heads too.
    """

    def __init__(self, backend: str | Callable | None = None, heads: bool = True) -> None:
        self.backend, self.heads = backend or 'inductor', heads
        self.compiled: list[tuple[nn.Module, str]] = []

    def before_run(self, runner) -> None:
        for module, name in parts_of(unwrap(runner.model), self.heads):
            setattr(module, name, Compiled(getattr(module, name), type(module).__name__, self.backend))
            self.compiled.append((module, name))

    def after_run(self, runner) -> None:
        """Undoes what :meth:`before_run` did."""
        for module, name in self.compiled:
            delattr(module, name)
        self.compiled.clear()

    release = after_run  # also after an error


class Compiled:
    """A method that is compiled when it is first called, for tensors of any sizes.

    Args:
        method: The method.
        title: What to call it in the log.
        backend: What compiles.
    """

    def __init__(self, method: Callable, title: str, backend: str | Callable) -> None:
        self.usual, self.title = method, title
        self.fast: Callable | None = torch.compile(
            method, fullgraph=True, backend=backend, options=inductor_options() if backend == 'inductor' else None)

    def __call__(self, *inputs: object) -> object:
        if self.fast is None:
            return self.usual(*inputs)
        for tensor, dims in opened(inputs):
            for dim in dims:
                if tensor.shape[dim] > 1:  # torch compiles for a size of 1 apart
                    torch._dynamo.mark_dynamic(tensor, dim)
        try:
            with functorch_config.patch(backward_at_once()):
                return self.fast(*inputs)
        except compiler_errors() as error:
            self.fast = None
            said = ' '.join(str(error).split('\n\n')[0].split())
            print_log(f'{self.title} cannot be compiled, and goes on without: {said[:400]}', logger='current',
                      level=logging.WARNING)
            return self.usual(*inputs)


def compiler_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of torch's compiler, which is slow to import, and there by the time that there is one."""
    from torch._dynamo.exc import TorchDynamoException
    from torch.fx.experimental.symbolic_shapes import ConstraintViolationError
    return TorchDynamoException, ConstraintViolationError


def backward_at_once() -> dict[str, bool]:
    """Returns the setting with which a backward that cannot be compiled is an error of the forward.

    torch would report it in each ``loss.backward()``, where no usual method is left to go on with. Not every release
    has the setting.
    """
    name = 'force_non_lazy_backward_lowering'
    return {name: True} if hasattr(functorch_config, name) else {}


def inductor_options() -> dict[str, bool]:
    """Returns options of torch's default compiler.

    With the first, dropout draws the numbers that it draws without compiling. The second leaves out an analysis that
    fails in torch 2.11 where sizes are open, and that not every release has.
    """
    wanted = {'fallback_random': True, 'triton.coalesce_tiling_analysis': False}
    return {name: value for name, value in wanted.items() if name in torch._inductor.list_options()}


OPEN = {2: (0, ), 3: (0, 1), 4: (0, 2, 3)}  # of angles (h*w, d/2), tokens (B, N, D) and features (B, D, h, w)


def opened(inputs: object) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Returns the tensors whose sizes may change, each with the dimensions that may."""
    if isinstance(inputs, Tensor):
        return [(inputs, OPEN[inputs.dim()])] if inputs.dim() in OPEN else []
    return [found for each in inputs for found in opened(each)] if isinstance(inputs, (tuple, list)) else []


def parts_of(model: nn.Module, heads: bool) -> list[tuple[nn.Module, str]]:
    """Returns modules of a model, each with the name of the method that is worth compiling.

    Args:
        model: The model of a run.
        heads: Whether heads count too.
    """
    parts = [(module, 'run_blocks') for module in model.modules() if isinstance(module, GatedPromptViT)]
    for module in model.modules() if heads else ():
        synchronised = torch.distributed.is_initialized() and any(
            isinstance(each, SyncBatchNorm) for each in module.modules())
        if getattr(module, 'compilable', False) and not synchronised:
            parts.append((module, 'forward'))
    return parts

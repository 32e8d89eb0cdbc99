"""A training step as a CUDA graph."""

from collections.abc import Callable

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..graphed import WARM_UP, CudaGraph, GraphedStep, why_not_graphed


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Replays the training step as a CUDA graph, for crops of one size: ``--cuda-graph``; see :class:`GraphedStep`.

    Where it cannot, the log says why and training goes on as usual. Results and checkpoints are those without it, so a
    run can be resumed with it or without. The graph keeps the memory of a step also during validations.

    Args:
        warm_up: The number of usual iterations before the recording.
        record: Makes a graph of a function; for tests.
    """

    priority = 'LOWEST'  # after the hooks that exchange weights

    def __init__(self, warm_up: int = WARM_UP, record: Callable | None = None) -> None:
        self.warm_up, self.record = warm_up, record
        self.model = None

    def before_train(self, runner) -> None:
        reason = why_not_graphed(runner.model, runner.optim_wrapper, runner.distributed)
        if reason and not self.record:
            runner.logger.warning(f'no CUDA graph: {reason}')
            return
        self.model = runner.model
        self.model.train_step = GraphedStep(self.model, self.record or CudaGraph, self.warm_up)

    def release(self, runner) -> None:
        """Undoes what :meth:`before_train` did, also after an error."""
        if self.model is not None:
            del self.model.train_step
            self.model = None

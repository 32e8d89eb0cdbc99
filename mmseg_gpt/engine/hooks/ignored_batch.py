"""A guard against batches without a label."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...adapters import unwrap
from ...datasets import batch_is_ignored
from ..errors import RunStopped
from ..loaders import image_files, samples_of


@HOOKS.register_module()
class IgnoredBatchHook(Hook):
    """Stops the run at a batch of which, over all processes, no pixel is labelled: its loss is 0, and teaches nothing.

    Args:
        stop: False only warns, for data of which that is to be expected.

    Raises:
        RunStopped: with the code 'nothing-labelled'; the message names the images.
    """

    def __init__(self, stop: bool = True) -> None:
        self.stop = stop

    def vote(self, runner, data_batch: dict | None) -> int:
        """Returns 1 if this process can learn from its share of the batch, else 0; see :class:`AgreeHook`."""
        model = unwrap(runner.model)
        head = getattr(getattr(model, 'members', [model])[0], 'decode_head', None)  # of a sweep, the first
        return int(not batch_is_ignored(samples_of(data_batch), getattr(head, 'ignore_index', 255)))

    def decide(self, runner, data_batch: dict | None, labelled: int) -> None:
        """Stops the run if no process can learn from the batch."""
        if labelled:
            return
        said = (f'iteration {runner.iter + 1}: every pixel of this batch is ignored, so there is nothing to learn from '
                f'it. Images: {", ".join(image_files(data_batch))}')
        if not self.stop:
            runner.logger.warning(said)
            return
        raise RunStopped(
            'nothing-labelled',
            f'stopped at {said}\nAre the label maps the right ones, and reduce_zero_label as they need? If such images '
            'are normal here, add dict(type="IgnoredBatchHook", stop=False) to custom_hooks, and --resume.')

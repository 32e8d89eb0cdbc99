"""The same buffers in all processes when a model is validated."""

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SameBuffersHook(Hook):
    """Gives every process the buffers of the first one before a validation, as a checkpoint saves them.

    The running statistics of plain BN differ between processes. Each would validate another model, and the mIoU of
    all of them together would be that of no checkpoint.
    """

    def before_val_epoch(self, runner) -> None:
        for buffer in runner.model.buffers() if get_world_size() > 1 else ():
            broadcast(buffer, src=0)

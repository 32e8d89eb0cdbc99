"""The frozen ViT in half precision, while a run trains under autocast."""

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from torch import nn

from ...adapters import frozen_backbones, unwrap
from ...models.half import HalfWeights
from ..optimizer import optimizer_wrappers


@HOOKS.register_module()
class HalfFrozenHook(Hook):
    """Rounds the weights of a frozen ViT once where ``--amp`` would have them rounded in every iteration.

    What is computed is the same, bit for bit. Checkpoints hold the original float32 weights, and validations use them,
    see :class:`mmseg_gpt.models.half.HalfWeights`. With EMAHook, whose averages hold a second ViT in float32, the ViT
    stays as it is.
    """

    priority = 'LOWEST'  # after the checkpoint hook has compared the ViT with its file

    def __init__(self) -> None:
        self.halves: list[HalfWeights] = []

    def before_train(self, runner) -> None:
        dtype = autocast_dtype(runner.optim_wrapper, runner.model)
        if dtype is not None and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
            backbones = frozen_backbones(unwrap(runner.model)).values()
            self.halves = [HalfWeights(vit, dtype, runner.work_dir) for vit in backbones]

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        for half in self.halves:
            half.round()  # in case something else has used the ViT without autocast

    def before_val(self, runner) -> None:
        for half in self.halves:
            half.restore()

    def after_val(self, runner) -> None:
        for half in self.halves:
            half.round()

    def release(self, runner) -> None:
        """Gives the ViT its weights back, also after an error."""
        for half in self.halves:
            half.release()
        self.halves.clear()


def autocast_dtype(wrapper: OptimWrapper | OptimWrapperDict, model: nn.Module) -> torch.dtype | None:
    """Returns the type to which an optimizer wrapper's autocast rounds weights; None without autocast."""
    kind = next(model.parameters()).device.type
    with optimizer_wrappers(wrapper)[0].optim_context(model):
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

"""Parameter groups for a model most of which is frozen."""

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainedPartsConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, without looking into modules that train nothing.

    The stock one warns about every frozen parameter, some 150 lines that hide the log's real warnings. All
    its ``paramwise_cfg`` options work as they do there.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, prefix, is_dcn_module)

"""Parameter groups for a model most of which is frozen."""

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainedPartsConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, without the modules that train nothing.

    The stock one makes a group for every frozen parameter, each with a warning in the log and a share in
    every scheduler step and checkpoint. All its ``paramwise_cfg`` options work as they do there.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, prefix, is_dcn_module)

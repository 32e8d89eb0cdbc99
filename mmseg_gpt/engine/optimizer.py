"""Optimizers of a model most of which is frozen: few parameter groups, and helpers that read wrappers."""

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

SPARED = ('gate_prior', 'temperature')  # from weight decay


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainedPartsConstructor(DefaultOptimWrapperConstructor):
    """Makes MMEngine's parameter groups, but skips modules that train nothing, and joins equal groups.

    Gates and temperatures have no weight decay, whatever is set.

    The stock one warns about every frozen parameter, some 150 lines that hide the log's real warnings, and makes a
    group of each trained one, so that an optimizer takes its step tensor by tensor. All other ``paramwise_cfg``
    options work as they do there.

    Args:
        optim_wrapper_cfg: The config of the optimizer wrapper.
        paramwise_cfg: Settings of single parameters, as in MMEngine.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        # A ConfigDict would make the groups ConfigDicts, and reading one takes 20 times as long.
        self.optimizer_cfg = dict(self.optimizer_cfg.items())

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None) -> None:
        if any(p.requires_grad for p in module.parameters()):
            super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:
            spare(params, module, self.base_wd)
            params[:] = merged(params)


def spare(groups: list[dict], module: nn.Module, usual: float) -> None:
    """Takes weight decay from gates and temperatures, which it would draw to 0, a gate of 1/2, without a gradient.

    Args:
        groups: The optimizer's, one for each parameter.
        module: The model.
        usual: The optimizer's weight decay.
    """
    spared = {id(parameter) for name, parameter in module.named_parameters() if name.endswith(SPARED)}
    for group in groups:
        if id(group['params'][0]) in spared and group.get('weight_decay', usual):
            group['weight_decay'] = 0.


def merged(groups: list[dict]) -> list[dict]:
    """Joins parameter groups of equal settings, in the order of the first of each."""
    by_settings: dict[str, dict] = {}
    for group in groups:
        settings = {name: value for name, value in group.items() if name != 'params'}
        key = repr(sorted(settings.items()))
        by_settings.setdefault(key, dict(settings, params=[]))['params'] += group['params']
    return list(by_settings.values())


def optimizer_wrappers(wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """Returns the wrapper of each optimizer."""
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def accumulated_iterations(wrapper: OptimWrapper | OptimWrapperDict) -> int:
    """Returns the number of iterations whose gradients make one optimizer step."""
    return max(each._accumulative_counts for each in optimizer_wrappers(wrapper))

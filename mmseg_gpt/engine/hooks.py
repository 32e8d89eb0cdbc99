"""The hook that says what is trained."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from prettytable import PrettyTable
from torch import nn

from ..adapters import unwrap


@HOOKS.register_module()
class ParameterTableHook(Hook):
    """Logs once, before training, how many parameters of each part are trained and how many are frozen."""

    def before_train(self, runner: Runner) -> None:
        runner.logger.info('parameters\n' + str(parameter_table(unwrap(runner.model))))


def parameter_table(model: nn.Module) -> PrettyTable:
    """Counts parameters by part: the backbone's children and parameters, and the model's other children."""
    table = PrettyTable(['part', 'trained', 'frozen'], align='r')
    table.align['part'] = 'l'
    in_all = {'in all': list(model.parameters())}
    for part, parameters in (parameters_by_part(model) | in_all).items():
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        total = sum(p.numel() for p in parameters)
        share = f' ({trained / total:.2%})' if part in in_all else ''
        table.add_row([part, f'{trained:,}{share}', f'{total - trained:,}'])
    return table


def parameters_by_part(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Groups parameters: ``backbone.X`` in two levels, everything else by the first."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        levels = name.split('.')
        parts.setdefault('.'.join(levels[:2 if levels[0] == 'backbone' else 1]), []).append(parameter)
    return parts

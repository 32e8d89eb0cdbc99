"""The numbers of trained and frozen parameters, said once in each run."""

from collections.abc import Iterable

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from prettytable import PrettyTable
from torch import nn

from ...adapters import unwrap
from ...events import report


@HOOKS.register_module()
class ParameterTableHook(Hook):
    """Logs once, before training, how many parameters of each part are trained and how many are frozen."""

    def before_train(self, runner: Runner) -> None:
        model = unwrap(runner.model)
        runner.logger.info('parameters\n' + str(parameter_table(model)))
        trained, total = count(model.parameters())
        parts = {part: dict(trained=trained, total=total) for part, (trained, total) in count_parameters(model).items()}
        report('parameters', trained=trained, total=total, parts=parts)


def parameter_table(model: nn.Module) -> PrettyTable:
    """Makes a table of the parameters of each part, and of the whole model."""
    table = PrettyTable(['part', 'trained', 'frozen'], align='r')
    table.align['part'] = 'l'
    for part, (trained, total) in count_parameters(model).items():
        table.add_row([part, f'{trained:,}', f'{total - trained:,}'])
    trained, total = count(model.parameters())
    table.add_row(['total', f'{trained:,} ({trained / total:.2%})', f'{total - trained:,}'])
    return table


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Counts how many parameters of each part are trained, and how many there are in total.

    The parts are the children and parameters of the backbone (``backbone.X``), and the other children of the model.
    """
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        levels = name.split('.')
        parts.setdefault('.'.join(levels[:2 if levels[0] == 'backbone' else 1]), []).append(parameter)
    return {part: count(parameters) for part, parameters in parts.items()}


def count(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    """Counts the trained ones among parameters, and all."""
    parameters = list(parameters)
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

"""Hooks every config uses: what is trained, and checkpoints that load safely."""

from collections.abc import Mapping

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from prettytable import PrettyTable
from torch import nn

from ..checkpoints import CheckpointError, differences


@HOOKS.register_module()
class ParameterTableHook(Hook):
    """Logs once, before training, how many parameters of each part are trained and how many are frozen."""

    def before_train(self, runner: Runner) -> None:
        runner.logger.info('parameters\n' + str(parameter_table(unwrap(runner.model))))


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Makes the runner's checkpoints loadable with ``weights_only=True``, and their loading strict.

    MMEngine 0.10.7 stores HistoryBuffer objects, which torch >= 2.6 refuses to load, so its own
    ``--resume`` fails. This hook stores them as plain lists and turns them back when resuming. MMEngine
    also loads whatever keys happen to fit; here all must fit, in name and shape, or it raises.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['message_hub'] = to_plain(checkpoint['message_hub'])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint.get('state_dict', checkpoint)
        problems = differences(unwrap(runner.model).state_dict(), state)
        if problems:
            raise CheckpointError(
                'the checkpoint does not fit the model of this config, so nothing was loaded:\n' + '\n'.join(problems) +
                '\nUse the config the checkpoint was trained with. A pretrained ViT belongs into '
                'model.backbone.init_cfg=dict(type="PretrainedViT", checkpoint=...), not into load_from.')
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = from_plain(checkpoint['message_hub'])


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside data-parallel and test-time-augmentation wrappers, of which there can be two."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


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


BUFFER = 'history_buffer'
# Enough for every smoothing window of the log; a whole run's history would outgrow the adapter.
KEPT_HISTORY = 1000


def to_plain(value: object) -> object:
    """Replaces, in nested dicts, every HistoryBuffer by a dict of lists and NumPy scalars by Python's."""
    if isinstance(value, HistoryBuffer):
        history, counts = (a[-KEPT_HISTORY:].tolist() for a in value.data)
        return {BUFFER: {'history': history, 'counts': counts, 'max_length': value.max_length}}
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def from_plain(value: object) -> object:
    """Undoes :func:`to_plain`."""
    if isinstance(value, Mapping):
        if set(value) == {BUFFER}:
            buffer = value[BUFFER]
            return HistoryBuffer(buffer['history'], buffer['counts'], buffer['max_length'])
        return {k: from_plain(v) for k, v in value.items()}
    return value

"""What a checkpoint of a run holds, and how a runner goes on from it."""

import time

import mmengine
import mmengine.runner

from .. import __version__
from ..adapters import frozen_state, unwrap
from ..checkpoints import CheckpointError
from ..checkpoints.plain_types import from_plain
from ..resources import command_of


def state_of(runner: mmengine.runner.Runner, done: dict[str, int], meta: dict, with_optimizer: bool,
             with_schedulers: bool) -> dict:
    """Collects all that a run needs to go on: weights, optimizer, schedule, counters, log, seed and config.

    Args:
        runner: The runner, in training.
        done: The numbers of epochs and iterations that are done, as ``epoch`` and ``iter``.
        meta: More to be noted under ``meta``; it may replace what ``done`` says.
        with_optimizer: Whether to save the optimizer's state.
        with_schedulers: Whether to save that of the learning rate's schedule.
    """
    dataset = runner.train_dataloader.dataset
    checkpoint = dict(
        meta=dict(
            done, **meta, seed=runner.seed, **runner.recorded_config, experiment_name=runner.experiment_name,
            time=time.strftime('%Y%m%d_%H%M%S'), mmengine_version=mmengine.__version__, mmseg_gpt_version=__version__,
            dataset_meta=getattr(dataset, 'metainfo', None), dataset_length=len(dataset)),
        state_dict=unwrap(runner.model).state_dict(), message_hub=runner.message_hub.state_dict())
    if with_optimizer:
        checkpoint['optimizer'] = runner.optim_wrapper.state_dict()
    if with_schedulers and runner.param_schedulers is not None:
        checkpoint['param_schedulers'] = [s.state_dict() for s in in_one_list(runner.param_schedulers)]
    return checkpoint


def put_back(runner: mmengine.runner.Runner, checkpoint: dict, filename: str, with_optimizer: bool,
             with_schedulers: bool) -> None:
    """Restores counters, log, optimizer and schedule from a checkpoint; the weights are the runner's business.

    Args:
        runner: The runner, about to train.
        checkpoint: What :func:`state_of` once collected.
        filename: The name of its file, for messages.
        with_optimizer: Whether to restore the optimizer's state.
        with_schedulers: Whether to restore that of the learning rate's schedule, if it was saved.

    Raises:
        CheckpointError: the optimizer had other parameters.
    """
    runner.train_loop._epoch, runner.train_loop._iter = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    runner.message_hub.load_state_dict(from_plain(checkpoint['message_hub']))
    if with_optimizer:
        try:
            runner.optim_wrapper.load_state_dict(checkpoint['optimizer'])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f'{filename} cannot be resumed: its optimizer had other parameters. {error}'
                                  ) from error
    if with_schedulers and 'param_schedulers' in checkpoint:
        schedulers, states = in_one_list(runner.param_schedulers), in_one_list(checkpoint['param_schedulers'])
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(state)
    runner.logger.info(f'resumed from {filename} at iteration {runner.iter} (epoch {runner.epoch})')
    if runner.iter >= runner.max_iters:
        runner.logger.warning(f'this run has done all its {runner.max_iters} iterations; '
                              f'{command_of("test")} evaluates it')


def without_frozen(checkpoint: dict, runner: mmengine.runner.Runner) -> None:
    """Takes the frozen ViT out of a checkpoint, and notes which pretrained file its weights are in."""
    checkpoint['meta']['frozen'] = runner.frozen_source
    for name in frozen_state(unwrap(runner.model)):
        del checkpoint['state_dict'][name]


def in_one_list(schedulers: dict | list | None) -> list:
    """Returns schedulers, or their states, in one list; with several optimizers there is a list for each of them."""
    return [s for group in schedulers.values() for s in group] if isinstance(schedulers, dict) else list(
        schedulers or [])

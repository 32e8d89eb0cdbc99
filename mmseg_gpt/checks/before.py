"""The checks that the tools call: of a config before the runner is built, and of the runner before it trains."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from ..environment import is_first_process
from .data import wrong_data, wrong_model
from .keys import misspelt_keys
from .machine import full_disk, unused_gpu, wrong_device, wrong_work_dir
from .missing import missing_checkpoint, missing_datasets, missing_weights
from .pairs import missing_parts, senseless_pairs
from .together import stop_together
from .trials import wrong_optimizer
from .types import unknown_types
from .values import odd_schedule, split_steps, wrong_backbone, wrong_numbers, wrong_paramwise

MAX_SHOWN = 16  # problems that fit on one screen


def check_files(cfg: Config, loaders: tuple[str, ...], pretrained: bool, device: str = 'auto') -> None:
    """Stops where a run with this config would fail, or would go on with something silently wrong.

    It looks for files that are missing; for datasets that are empty or incomplete, or have wrong files or labels (it
    opens files spread over them), or another number of classes than the heads; and for misspelt keys, numbers that
    make no sense, settings that make none together, a work directory that cannot be written, and a GPU that is asked
    for and not there. It writes nothing.

    Args:
        cfg: The whole config.
        loaders: The names of the data loaders that will be used, such as ``('train_dataloader', 'val_dataloader')``.
        pretrained: Whether the backbone will be filled from ``init_cfg``.
        device: 'cuda' if a GPU is asked for, else 'auto'.

    Raises:
        SystemExit: something is missing or wrong; the message lists all of it, and says what to do.
    """
    loaders = tuple(loader for loader in loaders if cfg.get(loader))
    missing = missing_datasets([cfg[loader].dataset for loader in loaders])
    if pretrained:
        missing += missing_checkpoint(cfg.get('model', {}).get('backbone', {}).get('init_cfg'))
    alone = misspelt_keys(cfg) + wrong_numbers(cfg, loaders)
    wrong = alone + wrong_device(cfg, device) + wrong_work_dir(cfg) + missing_weights(cfg) + wrong_backbone(cfg)
    if not alone:  # only settings that are right alone can be judged together
        wrong += wrong_together(cfg, loaders)
    # Images are loaded last, by one process, and only where nothing else is wrong.
    wrong += wrong_data(cfg, loaders, look_at_pairs=is_first_process(), try_batches=not (missing or wrong))
    refuse(missing, wrong)


def wrong_together(cfg: Config, loaders: tuple[str, ...]) -> list[str]:
    """Says which settings do not go together, or cannot be built together."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        wrong = unknown_types(cfg) + missing_parts(cfg, loaders) + senseless_pairs(cfg, loaders) + wrong_model(cfg)
        return wrong + (wrong_optimizer(cfg) if 'train_dataloader' in loaders else [])


def check_run(runner: Runner) -> None:
    """Stops where training this built model would fail or do something unwanted; warns of what looks odd.

    It finds keys of ``paramwise_cfg`` that match nothing, and a disk without room for the checkpoints. Call it before
    ``runner.train()``; it changes nothing.

    Args:
        runner: A runner whose model is built.

    Raises:
        SystemExit: the message lists what is wrong.
    """
    refuse([], wrong_paramwise(runner.cfg, runner.model) + full_disk(runner.cfg, runner.model))
    for warning in odd_schedule(runner.cfg) + split_steps(runner.cfg) + unused_gpu():
        runner.logger.warning(warning)


def refuse(missing: list[str], wrong: list[str]) -> None:
    """Ends the process if anything is missing or wrong, with a message that lists all of it.

    Args:
        missing: What is not there, with how to get it.
        wrong: What is wrong, each in a sentence.

    Raises:
        SystemExit: with the message; where there are several processes, all end, and only the first speaks.
    """
    said = []
    if missing:
        said += ['Nothing was started, because this is missing:', *missing,
                 f'Paths are relative to the current folder, {Path.cwd()}.']
    if wrong:
        more = [f'  * and {len(wrong) - MAX_SHOWN} more'] if len(wrong) > MAX_SHOWN else []
        shown = '\n'.join([f'  * {problem}' for problem in wrong[:MAX_SHOWN]] + more)
        said += ['And this is wrong:' if missing else 'Nothing was started, because this is wrong:', shown]
    stop_together('\n\n'.join(said))

"""What the tools call: all checks of a config before the runner is built, and of the runner before it trains."""

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from .data import wrong_data
from .keys import misspelt_keys
from .missing import missing_checkpoint, missing_datasets, missing_weights
from .model import full_disk, wrong_backbone, wrong_paramwise
from .values import odd_schedule, split_steps, unused_gpu, wrong_device, wrong_numbers, wrong_work_dir

MOST = 16  # problems that fit on one screen


def check_files(cfg: Config, loaders: tuple[str, ...], pretrained: bool, device: str = 'auto') -> None:
    """Stops where a run with this config would fail, or would go on with something silently wrong.

    Files that are missing, datasets that are empty, incomplete or have wrong files or labels (of a spread-out
    sample), another number of classes than the heads', misspelt keys, nonsense numbers, a work directory that cannot
    be written, a GPU that is asked for and not there. Nothing is written.

    Args:
        cfg: The whole config.
        loaders: Which data loaders will be used, such as ``('train_dataloader', 'val_dataloader')``.
        pretrained: Whether the backbone will be filled from ``init_cfg``.
        device: 'cuda' if a GPU is asked for, else 'auto'.

    Raises:
        SystemExit: something is missing or wrong; the message lists all of it, and says what to do.
    """
    loaders = tuple(loader for loader in loaders if cfg.get(loader))
    missing = missing_datasets([cfg[loader].dataset for loader in loaders])
    if pretrained:
        missing += missing_checkpoint(cfg.get('model', {}).get('backbone', {}).get('init_cfg'))
    wrong = misspelt_keys(cfg) + wrong_numbers(cfg, loaders) + wrong_device(cfg, device) + wrong_work_dir(cfg)
    wrong += missing_weights(cfg) + wrong_backbone(cfg) + wrong_data(cfg, loaders, look_at_pairs=is_first_process())
    refuse(missing, wrong)


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
    """Ends the process with all that is missing and wrong, if anything is; of many processes, one says it.

    Raises:
        SystemExit: with the message, or with 1 in the processes that stay silent.
    """
    if not missing and not wrong:
        return
    if not is_first_process():
        raise SystemExit(1)
    said = []
    if missing:
        said += ['Nothing was started, because this is missing:', *missing,
                 f'Paths are relative to the current folder, {Path.cwd()}.']
    if wrong:
        more = [f'  * and {len(wrong) - MOST} more'] if len(wrong) > MOST else []
        shown = '\n'.join([f'  * {problem}' for problem in wrong[:MOST]] + more)
        said += ['And this is wrong:' if missing else 'Nothing was started, because this is wrong:', shown]
    raise SystemExit('\n\n'.join(said))


def is_first_process() -> bool:
    """Whether this is the first process of torchrun, Slurm or MPI, or the only one; nothing is initialised yet."""
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in ranks if rank is not None), '0') == '0'

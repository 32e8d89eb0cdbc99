"""Resuming: which checkpoint to go on from, and whether this config may go on with that run."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.logging import print_log

from ..checkpoints import CheckpointError, read_file
from ..settings import flatten, is_under, look_up, settings_of

POINTER = 'last_checkpoint'
NONE_YET = 'none yet, as the run was started over'  # what is in it then: older checkpoints are of another run
# Settings that say where and how a run is carried out, not what it is.
OUTSIDE = ('resume', 'load_from', 'started_from', 'work_dir', 'launcher', 'experiment_name', 'log_level')
# Settings that make the run what it is; those of the optimizer and the schedule would also silently keep their old
# values, which are in the checkpoint.
FIXED = ('model', 'optim_wrapper', 'param_scheduler', 'train_dataloader.batch_size', 'train_dataloader.sampler',
         'train_dataloader.batch_sampler', 'train_cfg.type', 'train_cfg.by_epoch', 'auto_scale_lr')
# What may change all the same: where the weights came from, how the model is tested, precision, and clipping, which
# helps a run that has become unstable.
FREE = ('model.backbone.init_cfg', 'model.test_cfg', 'model.data_preprocessor.test_cfg',
        'model.model.backbone.init_cfg', 'model.model.test_cfg', 'model.model.data_preprocessor.test_cfg',
        'optim_wrapper.type', 'optim_wrapper.loss_scale', 'optim_wrapper.dtype', 'optim_wrapper.clip_grad')


def find_resumed(cfg: Config, work_dir: str | Path, filename: str | None = None
                 ) -> tuple[str | Path | None, dict | None]:
    """Finds and reads the checkpoint to go on from, and refuses a config that is not the run's.

    Args:
        cfg: The config of this start.
        work_dir: The run's folder.
        filename: The checkpoint; None for the newest in the folder.

    Returns:
        The file and what it holds; None and None if there has been no run.

    Raises:
        CheckpointError: it cannot be resumed, or not with this config.
    """
    path = filename or newest_checkpoint(work_dir, look_up(cfg, 'default_hooks.checkpoint.out_dir'))
    if path is None:
        print_log(f'{work_dir} holds no checkpoint: the run starts from iteration 0', logger='current')
        return None, None
    checkpoint = check_resumable_file(Path(path))
    check_settings(checkpoint, cfg, path)
    return path, checkpoint


def newest_checkpoint(work_dir: str | Path, out_dir: str | Path | None = None) -> Path | None:
    """Finds the newest whole checkpoint of a run that can be resumed.

    It is the one that the file ``last_checkpoint`` names, or one written after that file; or, where that file or its
    checkpoint is missing or broken, the newest that is whole; then the log says so.

    Args:
        work_dir: The run's folder.
        out_dir: Where the checkpoint hook writes, if elsewhere; checkpoints are in a folder of the run's name there.

    Returns:
        The file, or None if there has been no run, or one that was started over and has saved nothing yet.

    Raises:
        CheckpointError: there has been one, but it has no checkpoint that is whole.
    """
    pointer = Path(work_dir, POINTER)
    folder = Path(out_dir, Path(work_dir).name) if out_dir else Path(work_dir)
    named, problems = named_checkpoint(pointer, folder), []
    started_over = pointer.is_file() and pointer.read_bytes() == NONE_YET.encode()
    for path in newest_first(folder, named, pointer, started_over):
        try:
            check_resumable_file(path)
        except CheckpointError as error:
            problems.append(f'  {error}')
            continue
        if named is None and not started_over:
            problems.append(f'  {pointer} is missing, or names no file in {folder}')
        if problems:
            print_log('\n'.join([f'resuming from {path}, the newest whole checkpoint, because', *problems]),
                      logger='current', level=logging.WARNING)
        return path
    if problems or (pointer.is_file() and not started_over):
        raise CheckpointError('\n'.join([f'no checkpoint in {folder} can be resumed:', *problems]))
    return None


def named_checkpoint(pointer: Path, folder: Path) -> Path | None:
    """Returns the checkpoint that ``last_checkpoint`` names, looked for in ``folder``, maybe a copy of the run's."""
    words = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if not words or '\0' in words:
        return None
    named = folder / Path(words).name
    return named if named.is_file() else None


def newest_first(folder: Path, named: Path | None, pointer: Path, started_over: bool) -> Iterator[Path]:
    """Lists what to resume from: checkpoints written after ``pointer``, ``named`` in it, and the others by their age.

    Of a run that was ``started_over``, only the first are.
    """
    files = [f for f in folder.glob('*.pth') if not f.name.startswith('best_')]
    files.sort(key=lambda f: (f.stat().st_mtime, number(f)), reverse=True)
    # A run that was started over, or from an earlier checkpoint, leaves higher numbers behind, but older files.
    later = [f for f in files if pointer.is_file() and f.stat().st_mtime > pointer.stat().st_mtime]
    if started_over:
        files = later
    elif named is not None:
        later = [f for f in later if number(f) > number(named)]
        files = [*later, named, *(f for f in files if f not in later and f != named)]
    return iter(files)


def number(path: Path) -> int:
    """Returns the iteration or epoch in a checkpoint's name, -1 if there is none."""
    numbers = re.findall(r'\d+', path.stem)
    return int(numbers[-1]) if numbers else -1


def check_resumable_file(path: Path) -> dict:
    """Reads a checkpoint, and checks that it holds all that a run needs to go on.

    Raises:
        CheckpointError: it is damaged, or lacks something.
    """
    checkpoint = read_file(path)
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    meta = parts.get('meta')
    absent = [k for k in ('state_dict', 'optimizer', 'message_hub') if not isinstance(parts.get(k), dict)]
    counted = meta if isinstance(meta, dict) else {}
    absent += [f'meta.{k}' for k in ('epoch', 'iter') if not isinstance(counted.get(k), int)]
    if absent:
        raise CheckpointError(f'{path} cannot be resumed: it lacks {", ".join(absent)}. It may be a pretrained '
                              'file, or one saved with save_optimizer=False; load_from starts a new run from weights')
    return checkpoint


def check_settings(checkpoint: dict, cfg: Config, path: str | Path) -> None:
    """Logs which settings differ from those of the run to be resumed.

    Args:
        checkpoint: What the run is resumed from.
        cfg: The config of this start.
        path: The name of the checkpoint's file, for messages.

    Raises:
        CheckpointError: one that cannot be changed within a run differs; the message names all of them.
    """
    old = checkpoint['meta'].get('settings')
    if not isinstance(old, str):
        print_log(f'{path} does not say with which config it was trained, so changes cannot be seen', logger='current',
                  level=logging.WARNING)
        return
    old, new = (flatten(json.loads(settings)) for settings in (old, settings_of(cfg)))
    changed = {k: f'  {k}: {json.dumps(old.get(k))} -> {json.dumps(new.get(k))}'
               for k in sorted(old.keys() | new.keys())
               if unplaced(k, old.get(k)) != unplaced(k, new.get(k)) and not is_under(k, OUTSIDE)}
    fixed = [line for key, line in changed.items() if is_under(key, FIXED) and not is_under(key, FREE)]
    if fixed:
        raise CheckpointError(
            f'{path} cannot be resumed with this config, because these settings were others in its run:\n' +
            '\n'.join(fixed) + '\nResume with the old settings; or start a new run from its weights: --cfg-options '
            f'load_from={path}, and another --work-dir')
    if changed:
        print_log('\n'.join(['settings that have changed since the run was started:', *changed.values()]),
                  logger='current', level=logging.WARNING)


def unplaced(key: str, value: object) -> object:
    """Returns the value of a setting; of a class only the name, which its place or scope may stand before."""
    return value.rpartition('.')[2] if key.rpartition('.')[2] == 'type' and isinstance(value, str) else value


def check_same_start(checkpoint: dict | None, work_dir: str | Path) -> None:
    """Compares where the processes of a run would begin.

    Args:
        checkpoint: What this process resumes from, if it does.
        work_dir: The run's folder.

    Raises:
        CheckpointError: they would begin at different iterations.
    """
    if len(set(all_gather_object(checkpoint['meta']['iter'] if checkpoint else 0))) > 1:
        raise CheckpointError(f'the processes would go on from different checkpoints: {work_dir} must be the same '
                              'folder on all machines')


def check_classes(checkpoint: dict, metainfo: dict | None, path: str | Path) -> None:
    """Compares the classes of the run to be resumed with those that the dataset has now.

    Raises:
        CheckpointError: they are others.
    """
    old = (checkpoint['meta'].get('dataset_meta') or {}).get('classes')
    new = (metainfo or {}).get('classes')
    if old is not None and new is not None and list(old) != list(new):
        raise CheckpointError(f'{path} cannot be resumed: its run had {len(old)} classes {list(old)[:3]}..., the '
                              f'dataset of this config has {len(new)} classes {list(new)[:3]}...')

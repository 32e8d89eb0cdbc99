"""Where to resume from, and whether this config may go on with that run."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints import CheckpointError, read_file
from ..settings import flatten, is_under, settings_of

POINTER = 'last_checkpoint'
# Settings that say where and how a run is carried out, not what it is.
OUTSIDE = ('resume', 'load_from', 'started_from', 'work_dir', 'launcher', 'experiment_name', 'log_level')
# Settings that make the run what it is; those of the optimizer and the schedule would also silently keep their old
# values, which are in the checkpoint.
FIXED = ('model', 'optim_wrapper', 'param_scheduler', 'train_dataloader.batch_size', 'train_dataloader.sampler',
         'train_dataloader.batch_sampler', 'train_cfg.type', 'train_cfg.by_epoch', 'auto_scale_lr')
# What may change all the same: where the weights came from, how the model is tested, precision, and clipping, which
# helps a run that has become unstable.
FREE = ('model.backbone.init_cfg', 'model.test_cfg', 'optim_wrapper.type', 'optim_wrapper.loss_scale',
        'optim_wrapper.dtype', 'optim_wrapper.clip_grad')


def newest_checkpoint(work_dir: str | Path, out_dir: str | Path | None = None) -> Path | None:
    """The newest whole checkpoint of a run that can be resumed.

    It is the one that the file ``last_checkpoint`` names, or one written later, or, where that file or its checkpoint
    is missing or broken, the newest that is whole; then the log says so.

    Args:
        work_dir: The run's folder.
        out_dir: That of the checkpoint hook, if it writes elsewhere: into a folder there of the run's name.

    Returns:
        The file, or None if there has been no run.

    Raises:
        CheckpointError: there has been one, but it has no checkpoint that is whole.
    """
    pointer = Path(work_dir, POINTER)
    folder = Path(out_dir, Path(work_dir).name) if out_dir else Path(work_dir)
    named, problems = named_checkpoint(pointer, folder), []
    for path in newest_first(folder, named):
        try:
            check_resumable_file(path)
        except CheckpointError as error:
            problems.append(f'  {error}')
            continue
        if named is None:
            problems.append(f'  {pointer} is missing, or names no file in {folder}')
        if problems:
            print_log('\n'.join([f'resuming from {path}, the newest whole checkpoint, because', *problems]),
                      logger='current', level=logging.WARNING)
        return path
    if problems or pointer.is_file():
        raise CheckpointError('\n'.join([f'no checkpoint in {folder} can be resumed:', *problems]))
    return None


def named_checkpoint(pointer: Path, folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names: one in ``folder``, as the folder may be a copy of the run's."""
    words = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if not words or '\0' in words:
        return None
    named = folder / Path(words).name
    return named if named.is_file() else None


def newest_first(folder: Path, named: Path | None) -> Iterator[Path]:
    """Candidates to resume from: those written after ``named``, ``named``, and the others by their age."""
    files = [f for f in folder.glob('*.pth') if not f.name.startswith('best_')]
    files.sort(key=lambda f: (f.stat().st_mtime, number(f)), reverse=True)
    if named is not None:
        # A run that was started over leaves higher numbers behind, but older files.
        later = [f for f in files if number(f) > number(named) and f.stat().st_mtime > named.stat().st_mtime]
        files = [*later, named, *(f for f in files if f not in later and f != named)]
    return iter(files)


def number(path: Path) -> int:
    """The iteration or epoch in a checkpoint's name, -1 if there is none."""
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
               if old.get(k) != new.get(k) and not is_under(k, OUTSIDE)}
    fixed = [line for key, line in changed.items() if is_under(key, FIXED) and not is_under(key, FREE)]
    if fixed:
        raise CheckpointError(
            f'{path} cannot be resumed with this config, because these settings were others in its run:\n' +
            '\n'.join(fixed) + '\nResume with the old settings; or start a new run from its weights: --cfg-options '
            f'load_from={path}, and another --work-dir')
    if changed:
        print_log('\n'.join(['settings that have changed since the run was started:', *changed.values()]),
                  logger='current', level=logging.WARNING)



def check_classes(checkpoint: dict, metainfo: dict | None, path: str | Path) -> None:
    """Raises a CheckpointError if the run had other classes than the dataset now has."""
    old = (checkpoint['meta'].get('dataset_meta') or {}).get('classes')
    new = (metainfo or {}).get('classes')
    if old is not None and new is not None and list(old) != list(new):
        raise CheckpointError(f'{path} cannot be resumed: its run had {len(old)} classes {list(old)[:3]}..., the '
                              f'dataset of this config has {len(new)} classes {list(new)[:3]}...')


def check_dataset_length(checkpoint: dict, length: int, endless: bool, path: str | Path) -> None:
    """Compares the number of samples with that of the run to be resumed.

    Raises:
        CheckpointError: it is another, and the run counts epochs of it.
    """
    old = checkpoint['meta'].get('dataset_length', length)
    if old == length:
        return
    said = f'its run had {old:,} training samples, and now there are {length:,}'
    if not endless:
        raise CheckpointError(f'{path} cannot be resumed: {said}, so its place in the epochs is lost. Start a new run '
                              'from its weights with load_from')
    print_log(f'{path}: {said}; they are drawn in another order from here on', logger='current', level=logging.WARNING)

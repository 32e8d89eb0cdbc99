"""Finds what was measured of a checkpoint: what ``adapt`` or ``test`` has written beside it."""

import json
import math
from numbers import Real
from pathlib import Path

from ..checkpoints import read_file
from ..settings import type_name, unwrapped_datasets

# Names of main scores, the first that is there being the one.
MAIN = ('mIoU', 'accuracy/top1', 'accuracy')


def source_of(folder: str | Path) -> tuple[str, str] | None:
    """Returns config and checkpoint of a folder that ``mmseg-gpt adapt`` has finished; None if it is none."""
    try:
        result = json.loads(Path(folder, 'result.json').read_text(encoding='utf-8'))
        return tuple(str(Path(folder, Path(result[name]).name)) for name in ('config', 'checkpoint'))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def results_beside(checkpoint: str | Path) -> dict:
    """Returns the results of a checkpoint that lie beside it; empty if there are none.

    Args:
        checkpoint: The file. What ``adapt`` (``result.json``) and ``test`` (``metrics.json``, or one that was kept
            under a number) have written counts if it is of a checkpoint of this name; of several tests, the latest.

    Returns:
        dict: ``metric``, ``scores``, ``measured_on``, ``images`` and ``per_class``, as far as they are known.
    """
    path = Path(checkpoint)
    for file in (path.with_name('result.json'), *sorted(path.parent.glob('metrics*.json'), key=age)):
        try:
            found = json.loads(file.read_text(encoding='utf-8'))
            if is_of(found, path) and not file.stem.startswith('metrics_tta'):
                return of_adapt(found) if file.name == 'result.json' else of_test(found)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def is_of(found: dict, checkpoint: Path) -> bool:
    """Returns whether results are of a checkpoint: of its name, and not of one that was trained anew since."""
    if Path(found['checkpoint']).name != checkpoint.name:
        return False
    return 'checkpoint_written' not in found or (
        (read_file(checkpoint).get('meta') or {}).get('time') == found['checkpoint_written'])


def age(file: Path) -> float:
    """Returns what sorts files of metrics from the latest, which has no number, to the first, ``metrics.1.json``."""
    number = file.stem.rpartition('.')[2]
    return -int(number) if number.isdecimal() else -math.inf


def of_adapt(found: dict) -> dict:
    """Returns the results in a ``result.json``."""
    return dict(metric=found['metric'], scores={found['metric']: found['score']}, images=found['images'],
                measured_on=f'own images ({found["measured_on"]})', per_class=found['per_class'])


def of_test(found: dict) -> dict:
    """Returns the results in a ``metrics.json``."""
    scores = {name: value for name, value in found.items() if isinstance(value, Real)}
    metric = next((name for name in MAIN if name in scores), next(iter(scores), None))
    if metric is None:
        return {}
    tested = (found.get('tested') or {}).get('test_dataloader') or {}
    dataset = type_name(next(unwrapped_datasets(tested.get('dataset') or {})))
    return dict(metric=metric, scores=scores, measured_on=dataset or None, images=None,
                per_class=[{'class': name, 'IoU': value} for name, value in found.get('per_class', {}).items()])

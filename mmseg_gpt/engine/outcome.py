"""What a test leaves: its numbers in ``metrics.json``, and which class is taken for which."""

import json
from itertools import count
from numbers import Real
from pathlib import Path

from mmengine.fileio import dump
from mmengine.runner import Runner

from ..analysis.confusion import most_confused, write_confusion
from ..events import report
from ..settings import protocol_of
from .confusion import ConfusionMetric


def add_confusion(runner: Runner, kind: type[ConfusionMetric] = ConfusionMetric) -> ConfusionMetric:
    """Adds the metric that counts confusions to those of a test; it ignores the pixels that they ignore.

    It is not in the config, so the score is noted with the same settings whether or not it is there.

    Args:
        runner: Before the test.
        kind: The metric's class.
    """
    evaluator = runner.test_loop.evaluator
    confusion = kind(next((metric.ignore_index for metric in evaluator.metrics
                           if hasattr(metric, 'ignore_index')), 255))
    confusion.dataset_meta = evaluator.dataset_meta
    evaluator.metrics.append(confusion)
    return confusion


def write_metrics(runner: Runner, metrics: dict, checkpoint: str, confusion: ConfusionMetric | None = None,
                  tta: bool = False) -> dict:
    """Writes and reports what was tested, the scores, numbers of parameters, each class's IoU, and confusions.

    Args:
        runner: After the test.
        metrics: What the test returned.
        checkpoint: The file that was tested, as it was named.
        confusion: The metric that counted confusions, if one did.
        tta: Whether the test was one with augmentation, whose files have names of their own.

    Returns:
        dict: What is in ``metrics.json``.
    """
    per_class = {name: iou for metric in runner.test_loop.evaluator.metrics
                 for name, iou in getattr(metric, 'per_class', {}).items()}
    parameters = list(runner.model.parameters())
    counted = dict(trained=sum(p.numel() for p in parameters if p.requires_grad),
                   total=sum(p.numel() for p in parameters))
    folder, end = Path(runner.work_dir), '_tta' if tta else ''
    rounded = {name: round(float(v), 4) if isinstance(v, Real) else v.tolist() if hasattr(v, 'tolist') else v
               for name, v in metrics.items()}
    written = {'checkpoint': checkpoint, 'checkpoint_written': runner.written, **rounded, 'parameters': counted,
               'tested': protocol_of(runner.cfg), 'per_class': per_class}
    if covered := [metric.covered for metric in runner.test_loop.evaluator.metrics if hasattr(metric, 'covered')]:
        written['classes'] = covered[0]
    names = [f'metrics{end}.json', *(f'confusion{end}{part}' for part in ('.csv', '_shares.csv', '.png'))]
    keep_earlier(folder, names, written)
    dump(written, folder / names[0], indent=2)
    report('metrics', **written)
    files = [folder / names[0]]
    if confusion and confusion.matrix is not None:
        files += write_confusion(confusion.matrix, confusion.classes, folder / names[1])
        if said := most_confused(confusion.matrix, confusion.classes):
            print(f'most confused: {"; ".join(said)}')
    print(f'written: {", ".join(map(str, files))}')
    return written


def keep_earlier(folder: Path, names: list[str], written: dict) -> None:
    """Renames the files of an earlier test of another checkpoint or on other data, which would be overwritten.

    Args:
        folder: The work directory.
        names: The files, that of the metrics first.
        written: The new metrics.
    """
    try:
        earlier = json.loads((folder / names[0]).read_text())
    except (OSError, ValueError):
        return
    new = json.loads(json.dumps({key: written[key] for key in ('checkpoint', 'tested')}))
    if all(earlier.get(key) == value for key, value in new.items()):
        return
    number = next(i for i in count(1) if not any(numbered(folder / name, i).exists() for name in names))
    for name in names:
        if (folder / name).is_file():
            (folder / name).rename(numbered(folder / name, number))
    print(f'{folder / names[0]} was of another test, of {earlier.get("checkpoint")}; it is kept as '
          f'{numbered(folder / names[0], number)}')


def numbered(path: Path, number: int) -> Path:
    """Returns the name under which a file is kept: ``metrics.json`` as ``metrics.1.json``."""
    return path.with_name(f'{path.stem}.{number}{path.suffix}')

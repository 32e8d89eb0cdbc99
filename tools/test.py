"""Evaluates a checkpoint: mIoU single-scale or multi-scale with flip (--tta), or accuracy of classification."""

import argparse
import json
from itertools import count
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_config_arguments, add_protocol_arguments, add_run_arguments

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.engine import Runner
    from mmseg_gpt.engine.confusion import ConfusionMetric


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='The numbers are also written to metrics.json '
                                     '(metrics_tta.json with --tta) in the work directory, and which class is taken '
                                     'for which to confusion.csv, as counts and as shares, and .png. A file of another '
                                     'test that is already there is kept under another name.')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--tta', action='store_true', help='multi-scale and flip, by the config\'s tta_pipeline')
    parser.add_argument('--out', metavar='DIR', help='save the predicted label maps there, as PNG, under the paths '
                        'of the images below their folder. Classes are numbered from 0, as in the model')
    parser.add_argument('--dataset-numbers', action='store_true', help='number the classes in --out as the label files '
                        'of the dataset do (with reduce_zero_label: from 1, as the server of ADE20K asks)')
    parser.add_argument('--show-dir', metavar='DIR', help='save pictures there: image with labels and with '
                        'predictions, named as in --out')
    parser.add_argument('--amp', nargs='?', const='bf16', choices=['bf16', 'fp16'], help='mixed precision, in which '
                        'some pixels change their label; bf16 where nothing follows (fp16 needs a GPU)')
    add_protocol_arguments(parser)
    add_run_arguments(parser)
    args = parser.parse_args()
    if args.dataset_numbers and not args.out:
        parser.error('--dataset-numbers is about the label maps of --out DIR')
    return args


def apply_arguments(cfg: 'Config', args: argparse.Namespace) -> None:
    """Changes a config as the arguments of this tool ask."""
    if not Path(args.checkpoint).is_file():
        raise SystemExit(f'there is no checkpoint {args.checkpoint}')
    cfg.update(load_from=args.checkpoint, resume=False)  # what a resumed training has written has resume=True
    if args.tta:
        if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
            raise SystemExit(f'--tta: {args.config} has no tta_pipeline and tta_model')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = dict(cfg.tta_model, module=cfg.model)
    if args.out and cfg.get('default_scope') == 'mmpretrain':
        raise SystemExit('--out is for label maps; classification has one class for each image, which '
                         'mmseg-gpt predict --json writes')


def add_outputs(runner: 'Runner', args: argparse.Namespace) -> 'ConfusionMetric | None':
    """Adds to a runner what writes the files that were asked for, and the metric that counts confusions.

    Nothing of it is in the config, so the score is noted with the same settings whatever is written.

    Returns:
        The metric, or None for a test without labels.

    Raises:
        SystemExit: the files cannot be written as asked.
    """
    from mmseg_gpt.engine.confusion import ConfusionMetric
    from mmseg_gpt.engine.hooks import LabelMapsHook, PicturesHook
    loop = runner.test_loop
    try:
        if args.out:
            runner.register_hook(LabelMapsHook(args.out, loop.dataloader.dataset, args.dataset_numbers))
        if args.show_dir:
            runner.register_hook(PicturesHook(args.show_dir, loop.dataloader.dataset))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    evaluator = loop.evaluator
    # Without output_dir, a metric that only formats has nothing to do, and mmsegmentation's fails.
    evaluator.metrics = [metric for metric in evaluator.metrics if not (
        getattr(metric, 'format_only', False) and getattr(metric, 'output_dir', '') is None)]
    if all(getattr(metric, 'format_only', False) for metric in evaluator.metrics):
        return None
    confusion = ConfusionMetric(next((metric.ignore_index for metric in evaluator.metrics
                                      if hasattr(metric, 'ignore_index')), 255))
    confusion.dataset_meta = evaluator.dataset_meta
    evaluator.metrics.append(confusion)
    return confusion


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


def write_metrics(runner: 'Runner', metrics: dict, args: argparse.Namespace,
                  confusion: 'ConfusionMetric | None') -> None:
    """Writes and reports what was tested, the scores, numbers of parameters, each class's IoU, and confusions."""
    from mmengine.fileio import dump

    from mmseg_gpt.analysis.confusion import most_confused, write_confusion
    from mmseg_gpt.events import report
    from mmseg_gpt.settings import protocol_of
    per_class = {name: iou for metric in runner.test_loop.evaluator.metrics
                 for name, iou in getattr(metric, 'per_class', {}).items()}
    parameters = list(runner.model.parameters())
    counted = dict(trained=sum(p.numel() for p in parameters if p.requires_grad),
                   total=sum(p.numel() for p in parameters))
    folder, tta = Path(runner.work_dir), '_tta' if args.tta else ''
    rounded = {name: round(float(v), 4) if isinstance(v, Real) else v.tolist() if hasattr(v, 'tolist') else v
               for name, v in metrics.items()}
    written = {'checkpoint': args.checkpoint, **rounded, 'parameters': counted, 'tested': protocol_of(runner.cfg),
               'per_class': per_class}
    if covered := [metric.covered for metric in runner.test_loop.evaluator.metrics if hasattr(metric, 'covered')]:
        written['classes'] = covered[0]
    names = [f'metrics{tta}.json', *(f'confusion{tta}{end}' for end in ('.csv', '_shares.csv', '.png'))]
    keep_earlier(folder, names, written)
    dump(written, folder / names[0], indent=2)
    report('metrics', **written)
    files = [folder / names[0]]
    if confusion and confusion.matrix is not None:
        files += write_confusion(confusion.matrix, confusion.classes, folder / names[1])
        if said := most_confused(confusion.matrix, confusion.classes):
            print(f'most confused: {"; ".join(said)}')
    print(f'written: {", ".join(map(str, files))}')


def main() -> None:
    args = parse_args()
    from mmseg_gpt import engine  # after the arguments, as importing takes seconds
    with engine.errors_in_words():
        cfg = engine.read_config(args.config, args.cfg_options, args.work_dir, args.launcher, args.search_split,
                                 args.authors_protocol)
        apply_arguments(cfg, args)
        engine.set_test_precision(cfg, args.amp)
        engine.check_files(cfg, ('test_dataloader', ), pretrained=False, device=args.device)
        runner = engine.Runner.from_cfg(cfg)
        confusion = add_outputs(runner, args)
        metrics = runner.test()
        if runner.rank == 0:
            write_metrics(runner, metrics, args, confusion)


if __name__ == '__main__':
    main()

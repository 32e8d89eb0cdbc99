"""Evaluates a checkpoint: mIoU single-scale or multi-scale with flip (--tta), or accuracy of classification."""

import argparse
import gc
from typing import TYPE_CHECKING

from arguments import add_config_arguments, add_protocol_arguments, add_run_arguments, checkpoint_is_there

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
                        'some pixels change their label; bf16 without a value (fp16 needs a GPU)')
    add_protocol_arguments(parser)
    add_run_arguments(parser)
    args = parser.parse_args()
    if args.dataset_numbers and not args.out:
        parser.error('--dataset-numbers is about the label maps of --out DIR')
    return args


def apply_arguments(cfg: 'Config', args: argparse.Namespace) -> None:
    """Changes a config as the arguments of this tool ask."""
    if not checkpoint_is_there(args.checkpoint):
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
    from mmseg_gpt.engine.hooks import LabelMapsHook, PicturesHook
    from mmseg_gpt.engine.outcome import add_confusion
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
    return add_confusion(runner)


def main() -> None:
    args = parse_args()
    from mmseg_gpt import engine  # after the arguments, as importing takes seconds
    from mmseg_gpt.engine.outcome import write_metrics
    with engine.errors_in_words():
        cfg = engine.read_config(args.config, args.cfg_options, args.work_dir, args.launcher, args.search_split,
                                 args.authors_protocol)
        gc.freeze()  # what is imported by now: MMEngine collects garbage for each dataset
        engine.join(cfg)
        apply_arguments(cfg, args)
        engine.set_test_precision(cfg, args.amp)
        engine.set_usual_kernels(cfg, args.cfg_options)
        engine.check_files(cfg, ('test_dataloader', ), pretrained=False, device=args.device)
        runner = engine.Runner.from_cfg(cfg)
        confusion = add_outputs(runner, args)
        metrics = runner.test()
        if runner.rank == 0:
            write_metrics(runner, metrics, args.checkpoint, confusion, args.tta)


if __name__ == '__main__':
    main()

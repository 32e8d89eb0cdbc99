"""Evaluates a checkpoint: mIoU single-scale or multi-scale with flip (--tta), or accuracy of classification."""

import argparse
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_config_arguments, add_protocol_arguments, add_run_arguments

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.engine import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog='The numbers are also written to metrics.json '
                                     '(metrics_tta.json with --tta) in the work directory.')
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--tta', action='store_true', help='multi-scale and flip, by the config\'s tta_pipeline')
    parser.add_argument('--out', metavar='DIR', help='save the predicted label maps there, as PNG')
    parser.add_argument('--show-dir', metavar='DIR', help='save pictures there: image with labels and with predictions')
    parser.add_argument('--amp', nargs='?', const='bf16', choices=['bf16', 'fp16'], help='mixed precision, in which '
                        'some pixels change their label; bf16 where nothing follows (fp16 needs a GPU)')
    add_protocol_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args()


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
    if args.out:
        if cfg.get('default_scope') == 'mmpretrain':
            raise SystemExit('--out is for label maps; classification has one class for each image')
        cfg.test_evaluator.output_dir = args.out
    if args.show_dir:
        show(cfg, args.show_dir)


def show(cfg: 'Config', folder: str) -> None:
    """Changes a config so that every image is drawn, with what mmsegmentation and mmpretrain have for it."""
    if cfg.get('default_scope') == 'mmpretrain':
        cfg.default_hooks.visualization.update(enable=True, interval=1, out_dir=folder)
    else:
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder


def write_metrics(runner: 'Runner', metrics: dict, args: argparse.Namespace) -> None:
    """Writes and reports what was tested, the scores, numbers of parameters and, for segmentation, each class's IoU."""
    per_class = {name: iou for metric in runner.test_loop.evaluator.metrics
                 for name, iou in getattr(metric, 'per_class', {}).items()}
    from mmengine.fileio import dump

    from mmseg_gpt.events import report
    from mmseg_gpt.lab.finished import protocol_of
    parameters = list(runner.model.parameters())
    counted = dict(trained=sum(p.numel() for p in parameters if p.requires_grad),
                   total=sum(p.numel() for p in parameters))
    path = Path(runner.work_dir) / ('metrics_tta.json' if args.tta else 'metrics.json')
    rounded = {name: round(float(v), 4) if isinstance(v, Real) else v for name, v in metrics.items()}
    written = {'checkpoint': args.checkpoint, **rounded, 'parameters': counted, 'tested': protocol_of(runner.cfg),
               'per_class': per_class}
    dump(written, path, indent=2)
    report('metrics', **written)
    print(f'written: {path}')


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
        metrics = runner.test()
        if runner.rank == 0:
            write_metrics(runner, metrics, args)


if __name__ == '__main__':
    main()

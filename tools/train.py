"""Trains the model of a config: segmentation or classification, on CUDA or on CPU."""

import argparse
import gc

from arguments import TRACKERS, add_config_arguments, add_protocol_arguments, add_run_arguments, positive, setting


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Several GPUs: torchrun --nproc-per-node 8 -m mmseg_gpt train CONFIG. Several '
        'machines: srun --kill-on-bad-exit=1 with a task for each GPU. The batch in the config is that of all '
        'processes together.')
    add_config_arguments(parser)
    begins = parser.add_mutually_exclusive_group()
    begins.add_argument('--resume', nargs='?', const=True, default=False, metavar='PATH',
                        help='go on from a checkpoint; without PATH, from the newest in the work directory')
    begins.add_argument('--overwrite', action='store_true', help='start over where the work directory holds a run')
    parser.add_argument('--amp', nargs='?', const='bf16', choices=['bf16', 'fp16'],
                        help='mixed precision; bf16 without a value (fp16 needs a GPU)')
    parser.add_argument('--compile', action='store_true', help='compile the blocks of the ViT and the heads that gain '
                        'by it; the first iterations then take a minute or more')
    parser.add_argument('--cuda-graph', action='store_true', help='replay the training step as a CUDA graph: for crops '
                        'of one size on one GPU, where the CPU is too slow to launch small batches')
    parser.add_argument('--auto-scale-lr', action='store_true', help='multiply the learning rate by the batch size of '
                        'all processes together, divided by the config\'s auto_scale_lr.base_batch_size')
    parser.add_argument('--track', nargs='+', action='extend', choices=TRACKERS, help='show gates, losses and '
                        'pictures in these too, in which the run is named after its work directory; MLflow writes '
                        'mlflow.db beside that, unless MLFLOW_TRACKING_URI names a server')
    parser.add_argument('--keep-features', nargs='?', const=10., type=positive(float), metavar='GB', help='compute the '
                        'features of each image once, where only a head is trained and images come again as they '
                        'were; they lie in the work directory, and take up to so many gigabytes (default: 10)')
    parser.add_argument('--sweep-heads', nargs='+', action='extend', type=setting, metavar='KEY=V1,V2', help='train a '
                        'head for each combination of values, all on the features of one frozen ViT: '
                        'lr=1e-4,1e-3,1e-2 weight_decay=0,1e-4, or any setting of the heads')
    add_protocol_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmseg_gpt import engine  # after the arguments, as importing takes seconds
    with engine.errors_in_words():
        cfg = engine.read_config(args.config, args.cfg_options, args.work_dir, args.launcher, args.search_split,
                                 args.authors_protocol)
        gc.freeze()  # what is imported by now: MMEngine collects garbage for each dataset
        if not cfg.get('train_dataloader'):
            raise SystemExit(f'{args.config} has no train_dataloader, as a shared model has none: take a config with '
                             f'data of yours, and begin with its weights by --cfg-options load_from={args.config}')
        engine.join(cfg)
        engine.set_precision(cfg, args.amp)
        engine.set_kept_features(cfg, args.keep_features)
        engine.set_launching(cfg, args.compile, args.cuda_graph)
        if args.auto_scale_lr:
            engine.set_scaling(cfg)
        engine.set_resume(cfg, args.resume, args.overwrite)
        engine.set_tracking(cfg, args.track)
        trained = engine.swept(cfg, args.sweep_heads, args.config) if args.sweep_heads else cfg
        loaders = ('train_dataloader', 'val_dataloader')
        engine.check_files(cfg, loaders, pretrained=not cfg.get('resume'), device=args.device)
        runner = engine.Runner.from_cfg(trained)
        engine.check_run(runner)
        runner.train()


if __name__ == '__main__':
    main()

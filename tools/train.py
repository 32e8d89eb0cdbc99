"""Trains the model of a config: segmentation or classification, on CUDA or on CPU."""

import argparse

import mmseg_gpt  # noqa: F401  registers everything
from mmseg_gpt.engine import (
    Runner,
    add_common_arguments,
    check_files,
    check_run,
    errors_in_words,
    read_config,
    set_precision,
    set_resume,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Several GPUs: torchrun --nproc-per-node 8 tools/train.py CONFIG. The batch in the '
        'config is that of all processes together.')
    parser.add_argument('config', help='config file, such as configs/setr_pup_gpt_mae_ade20k.py')
    parser.add_argument('--resume', nargs='?', const=True, default=False, metavar='PATH',
                        help='go on from a checkpoint; without PATH, from the newest in the work directory')
    parser.add_argument('--overwrite', action='store_true', help='start over where the work directory holds a run')
    parser.add_argument('--amp', nargs='?', const='bf16', choices=['bf16', 'fp16'],
                        help='mixed precision; bf16 where nothing follows (fp16 needs a GPU)')
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    set_precision(cfg, args.amp)
    set_resume(cfg, args.resume, args.overwrite)
    check_files(cfg, ('train_dataloader', 'val_dataloader'), pretrained=not cfg.get('resume'), device=args.device)
    with errors_in_words():
        runner = Runner.from_cfg(cfg)
        check_run(runner)
        runner.train()


if __name__ == '__main__':
    main()

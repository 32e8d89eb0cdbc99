"""Writes a model as one file that runs without this project: ONNX, or PyTorch's exported program (.pt2).

Prompts, gates, temperatures and updates are folded in. The file is compared with the model before it is kept.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import checkpoint_is_there, config_and_checkpoint, configs_command

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.export import Choices, Exported

EXAMPLE = """\
examples:
  %(prog)s work_dirs/mine mine.onnx --preprocess          # a folder that mmseg-gpt adapt has finished
  %(prog)s setr_pup_gpt_mae_ade20k ade.pth ade.onnx --preprocess --half fp16 --measure

  A segmentor is written as it labels one window: where the config resizes images or slides windows over them, the
  caller has to do so too. The number of images is open, and height and width too where the head allows.

Exit code: 0; 1 if the checkpoint cannot be used or the file would differ from it; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help=f'a config file, or a name, which {configs_command()} lists; or a folder that '
                        'mmseg-gpt adapt has finished; or hf://OWNER/NAME')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint, whole or with adapters only; none with a folder '
                        'of mmseg-gpt adapt or with hf://')
    parser.add_argument('out', type=Path, metavar='OUT', help='the file to write: OUT.onnx or OUT.pt2')
    parser.add_argument('--output', choices=('labels', 'probabilities', 'logits'), default='labels',
                        help='what it returns (default: %(default)s)')
    parser.add_argument('--preprocess', action='store_true', help='take images of uint8, red first, and normalise '
                        'them inside (default: take normalised images of float32)')
    parser.add_argument('--layout', choices=('nchw', 'nhwc'), default='nchw', help='axes of the images with '
                        '--preprocess (default: %(default)s)')
    parser.add_argument('--size', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help='take images of this size only '
                        '(default: of any size, where the head allows)')
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument('--half', choices=('fp16', ), help='compute in half precision (.onnx)')
    precision.add_argument('--int8', action='store_true', help='keep the weights of linear layers in 8 bits (.onnx)')
    parser.add_argument('--measure', action='store_true', help='evaluate model and file on the config\'s validation '
                        'images (.onnx)')
    parser.add_argument('--vit', metavar='FILE', help='the pretrained ViT (default: the one that the config names)')
    args = parser.parse_intermixed_args()
    if args.out.suffix not in ('.onnx', '.pt2'):
        parser.error(f'{args.out} must end in .onnx or .pt2')
    if not args.checkpoint:
        args.config, args.checkpoint = config_and_checkpoint(args.config, parser)
    if not checkpoint_is_there(args.checkpoint):
        parser.error(f'there is no checkpoint {args.checkpoint}')
    if args.vit and not Path(args.vit).is_file():
        parser.error(f'there is no pretrained ViT {args.vit}')
    if not args.out.resolve().parent.is_dir():
        parser.error(f'{args.out}: there is no such folder')
    if args.out.suffix == '.pt2' and (args.half or args.int8 or args.measure):
        parser.error('--half, --int8 and --measure are for .onnx files')
    if args.layout == 'nhwc' and not args.preprocess:
        parser.error('--layout nhwc is for images of uint8: give --preprocess too')
    return args


def report_export(exported: 'Exported') -> None:
    """Prints what was written and how it was compared with the model."""
    size = exported.path.stat().st_size / 2**20
    print(f'written: {exported.path} ({size:,.1f} MiB)')
    if exported.size:
        print(f'images are {exported.size[0]} x {exported.size[1]} pixels (height x width), because '
              f'{exported.why_fixed}; their number is open')
    else:
        print('number, height and width of images are open')
    for what in exported.left_to_caller:
        print(f'to answer as predict does, {what}')
    print(f'compared with the model on images of the shapes {", ".join(map(str, exported.shapes))}: largest difference '
          f'{exported.difference:.2g} of the largest value ({exported.bound:g} is accepted), '
          f'{exported.equal_labels:.2%} of the labels equal')


def report_measured(cfg: 'Config', args: argparse.Namespace, choices: 'Choices') -> None:
    """Evaluates the model and the file, and prints the metrics of both."""
    from prettytable import PrettyTable

    from mmseg_gpt.export import measure
    before, after = measure(cfg, args.checkpoint), measure(cfg, args.checkpoint, args.out, choices)
    table = PrettyTable(['', 'model', 'file', 'change'], align='r')
    for name in before:
        if name in after:
            table.add_row([name, *(f'{value:.2f}' for value in (before[name], after[name])),
                           f'{after[name] - before[name]:+.2f}'])
    print(f'on the validation images:\n{table}')


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.apis import load_task
    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.engine.config import find_config
    from mmseg_gpt.export import Choices, export_task
    MMLogger.get_instance('export', log_level='WARNING')
    cfg = find_config(args.config)
    if args.vit:
        key = (cfg.model.backbone.get('init_cfg') or {}).get('key')
        cfg.model.backbone.init_cfg = dict(type='PretrainedViT', checkpoint=args.vit, key=key)
    choices = Choices(args.output, args.preprocess, args.layout, tuple(args.size) if args.size else None,
                      bool(args.half), args.int8)
    with errors_in_words():
        try:
            task = load_task(args.config, cfg, args.checkpoint, frozen=False)
            if args.vit and task.whole:
                raise ValueError(f'--vit is for checkpoints that leave the ViT out, and {args.checkpoint} holds it: '
                                 'leave it out')
            report_export(export_task(task, args.out, choices))
            if args.measure:
                report_measured(cfg, args, choices)
        except ValueError as error:
            raise SystemExit(str(error)) from error


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')

"""Says what is in a checkpoint (--list), or writes its weights to a .safetensors or .pth file.

No code inside a file is ever run. Checkpoints of stock MMEngine, which training refuses because they hold Python
objects, are read without these objects.
"""

import argparse
from pathlib import Path

AS_IS = 'as-is'
LAYOUTS = ('timm', 'mmpretrain', 'mmsegmentation', 'mmseg_gpt', 'dinov3', 'huggingface', AS_IS)
LAYOUT_HELP = ('the names to write. timm (default), mmpretrain, mmsegmentation and mmseg_gpt hold the ViT alone, and '
               'so do dinov3 and huggingface, which are for DINOv3; '
               f'{AS_IS} holds all weights of SRC, heads too, under the names they have there')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='examples:\n  %(prog)s --list pretrained/mae_pretrain_vit_base.pth\n'
        '  %(prog)s timm://vit_base_patch14_dinov2.lvd142m dinov2_b.safetensors\n'
        '  %(prog)s --list --key model_ema deit_checkpoint.pth\n'
        f'  %(prog)s --layout {AS_IS} old_mmengine/iter_160000.pth iter_160000.pth\n'
        f'  %(prog)s --layout {AS_IS} --vit pretrained/mae_pretrain_vit_base.pth adapters.pth whole.pth\n\n'
        'Exit code: 0; 1 if a file cannot be read or written; 2 for a wrong command line.')
    parser.add_argument('src', metavar='SRC', help='a checkpoint: a path, an http(s) address, or timm://NAME')
    parser.add_argument('dst', metavar='DST', nargs='?', type=Path, help='the .safetensors or .pth file to write')
    parser.add_argument('--list', action='store_true', help='only say what SRC holds and how a config uses it')
    parser.add_argument('--layout', choices=LAYOUTS, help=LAYOUT_HELP)
    parser.add_argument('--vit', metavar='FILE', help=f'with --layout {AS_IS}: make a whole checkpoint of an '
                        'adapter-only SRC and its pretrained ViT, a path or an address, for programs that cannot load '
                        'adapters alone, such as the inferencers of mmpretrain and mmsegmentation')
    parser.add_argument('--key', metavar='NAME', help='which model to take of an SRC that holds several, such as '
                        'model_ema or teacher: a part of the file, or what the names of its weights begin with')
    parser.add_argument('--sha256', metavar='HEX', help='refuse SRC if it has another SHA-256')
    parser.add_argument('--force', action='store_true', help='overwrite DST')
    args = parser.parse_args()
    if args.list == (args.dst is not None):
        parser.error('give either --list or DST')
    if args.list and (args.layout or args.force):
        parser.error('--list writes nothing: leave out --layout and --force')
    if args.vit and args.layout != AS_IS:
        parser.error(f'--vit goes with --layout {AS_IS} and DST')
    args.layout = args.layout or 'timm'
    return args


def main() -> None:
    args = parse_args()
    from mmseg_gpt.checkpoints import CheckpointError, fetch  # after the arguments, as importing takes seconds
    from mmseg_gpt.convert import convert, describe
    from mmseg_gpt.files import file_sha256
    try:
        source = fetch(args.src, args.sha256)
        if args.list:
            print(describe(source, args.key))
            return
        count = convert(source, args.dst, args.layout, args.force, args.vit, args.key)
        print(f'written: {args.dst} ({count} weights, layout {args.layout})\nsha256:  {file_sha256(args.dst)}')
    except (CheckpointError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == '__main__':
    main()

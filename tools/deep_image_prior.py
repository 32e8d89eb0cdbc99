"""Reconstructs images from the output of one block of a pretrained ViT, by Deep Image Prior (Figures 2, 9 to 11).

The pictures lack what the block has thrown away. The ViT is used as it was pretrained, without prompts.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_figure_arguments, check_device, positive

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.analysis.encoder import Encoder
    from mmseg_gpt.analysis.reconstructions import Reconstruction

BACKBONES = Path(__file__).parents[1] / 'configs/_base_/backbones'
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
SECONDS = 30  # time between two drawings of the growing figures
EXAMPLE = """\
example, the paper's Figure 9 for CUB, for a GPU:
  %(prog)s --vits supervised=supervised_b "MoCo v3=mocov3_b" MAE=mae_b --images data/CUB_200_2011/images \\
      --limit 100 --out work_dirs/dip/cub.png

in minutes on a CPU, with the ViT of make demo:
  %(prog)s --vits MAE=setr_pup_gpt_mae_sample --images work_dirs/demo/data/images/validation \\
      --limit 2 --size 96 --iterations 600 --out work_dirs/demo/dip.png

FILE shows the pictures, FILE_scores PSNR and SSIM by block. Both are drawn again as results come. Each finished
reconstruction is kept in the folder FILE without its suffix. So the same command goes on where it was stopped, and a
command with more images, blocks or ViTs makes only the new reconstructions."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--vits', nargs='+', required=True, metavar='[NAME=]CONFIG[:CHECKPOINT]', help='pretrained '
                        f'ViTs: a file of {BACKBONES.relative_to(BACKBONES.parents[2])} without its suffix, such as '
                        'mae_b, or any config; NAME is its name in the figures; CHECKPOINT, such as a fine-tuned '
                        'model, is read in the place of the pretrained file')
    parser.add_argument('--images', nargs='+', required=True, type=Path, metavar='IMAGE', help='image files, or '
                        'folders, which are searched; their centre squares are used')
    parser.add_argument('--limit', type=positive(int), metavar='N', help='use N of the images, evenly spaced')
    parser.add_argument('--blocks', nargs='+', type=positive(int), default=[1, 4, 7, 10], metavar='BLOCK',
                        help='reconstruct from these blocks, counted from 1 (default: the paper\'s, 1 4 7 10)')
    parser.add_argument('--size', type=positive(int), default=224, metavar='PIXELS', help='side of the images, 8 or '
                        'more (default: %(default)s)')
    parser.add_argument('--iterations', type=positive(int), default=3000, metavar='N', help='iterations of each '
                        'reconstruction (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=0.005, metavar='RATE', help='learning rate of Adam, which falls to '
                        '0 in the last quarter (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the first weights and the noise of the generator '
                        '(default: %(default)s)')
    parser.add_argument('--show', type=positive(int), default=4, metavar='N', help='draw the pictures of the first N '
                        'images (default: %(default)s)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is a GPU')
    add_figure_arguments(parser, 'work_dirs/deep_image_prior.png')
    args = parser.parse_args()
    args.vits = read_vits(args.vits, parser)
    args.images = find_images(args.images, args.limit, parser)
    args.blocks = sorted(set(args.blocks))
    if args.size < 8 or not args.lr > 0:
        parser.error('--size must be at least 8, and --lr above 0')
    return args


def read_vits(texts: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, tuple[str, str | None]]:
    """Reads ``[NAME=]CONFIG[:CHECKPOINT]``; returns config and checkpoint of each ViT by its name."""
    vits: dict[str, tuple[str, str | None]] = {}
    for text in texts:
        name, _, source = text.partition('=') if '=' in text.partition(':')[0] else (None, '', text)
        config, _, checkpoint = source.partition(':')
        name = name or Path(config).stem
        if name in vits:
            parser.error(f'two ViTs are called {name}: name them, as NAME=CONFIG')
        if name in ('.', '..') or set(name) & set('/\\'):
            parser.error(f'"{name}" cannot be the name of a ViT, as it names a folder: leave out / \\')
        vits[name] = config, checkpoint or None
    return vits


def find_images(paths: Sequence[Path], limit: int | None, parser: argparse.ArgumentParser) -> dict[str, Path]:
    """Finds the image files by names that can name files: their own, or their path in a folder with - for /."""
    images: dict[str, Path] = {}
    for path in paths:
        inside = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES)
        if not path.is_file() and not inside:
            parser.error(f'{path} is neither an image nor a folder with {", ".join(SUFFIXES)}')
        for file in inside or [path]:
            name = '-'.join(file.relative_to(path if inside else path.parent).with_suffix('').parts)
            if images.setdefault(name, file) != file:
                parser.error(f'{images[name]} and {file} would have the same name: give them one after the other, with '
                             'another --out')
    names = list(images)
    count = min(limit or len(names), len(names))
    return {name: images[name] for name in (names[i * len(names) // count] for i in range(count))}


def read_encoders(args: argparse.Namespace) -> dict[str, 'Encoder']:
    """Loads the ViTs.

    Raises:
        SystemExit: there is no such config or pretrained file.
    """
    import torch

    from mmseg_gpt.analysis.encoder import read_encoder
    from mmseg_gpt.checks.before import refuse
    from mmseg_gpt.checks.missing import missing_checkpoint
    check_device(args.device)
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    configs = {}
    for name, (config, checkpoint) in args.vits.items():
        configs[name] = cfg = config_of(config)
        if checkpoint:
            cfg.model.setdefault('backbone', {})['init_cfg'] = dict(type='PretrainedViT', checkpoint=checkpoint)
    refuse([problem for cfg in configs.values() for problem in missing_checkpoint(cfg.model.get('backbone', {}).get(
        'init_cfg'), '--vits NAME=CONFIG:FILE')], [])
    return {name: read_encoder(cfg, args.size).to(device) for name, cfg in configs.items()}


def config_of(vit: str) -> 'Config':
    """Returns the config of a model, or a bare one of a ViT that is named by its file in ``_base_/backbones``."""
    from mmengine.config import Config

    from mmseg_gpt.engine.config import find_config
    from mmseg_gpt.recipes.experiment import PIXELS
    base = BACKBONES / f'{vit}.py'
    if not base.is_file():
        return find_config(vit)
    settings = Config.fromfile(base).vit
    pixels = {name: settings.pop(name, usual) for name, usual in PIXELS.items()}
    return Config(dict(model=dict(
        backbone=dict(type='GatedPromptViT', **settings), data_preprocessor=dict(pixels, bgr_to_rgb=True))))


def reconstruct(args: argparse.Namespace) -> list[Path]:
    """Makes all reconstructions, shows their progress, and redraws the figures as they come; returns the files."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mmseg_gpt.analysis.reconstruction_figures import write_all
    from mmseg_gpt.analysis.reconstructions import Settings, read_picture, reconstruct_all
    from mmseg_gpt.resources import this_command
    from mmseg_gpt.wording import duration
    settings = Settings(args.iterations, args.lr, args.seed)
    originals = {name: read_picture(path, args.size) for name, path in args.images.items()}
    found: dict[tuple[str, str, int], Reconstruction] = {}

    def write() -> list[Path]:
        return write_all(list(found.values()), dict(list(originals.items())[:args.show]), list(args.vits), args.blocks,
                         args.iterations, args.out, lr=args.lr, seed=args.seed, size=args.size,
                         command=this_command())

    total, started, written = len(originals) * len(args.vits) * len(args.blocks), False, 0.
    with Progress(TextColumn('reconstructing'), BarColumn(), TextColumn('{task.percentage:.0f} %'),
                  TimeRemainingColumn(), speed_estimate_period=600) as progress:
        task = progress.add_task('', total=total * args.iterations)
        for each in reconstruct_all(read_encoders(args), originals, args.blocks, settings, args.out.with_suffix('')):
            found[each.image, each.vit, each.block] = each
            done = sum(other.step for other in found.values())
            if each.step == 0 and not started:  # the kept ones took no time
                progress.reset(task, completed=done)
                started = True
            progress.update(task, completed=done)
            if each.step == args.iterations:
                left = progress.tasks[task].time_remaining if started else None
                print(f'{done // args.iterations}/{total}  {described(each)}' +
                      (f'  {duration(left)} left' if left else ''), flush=True)
            if time.monotonic() > written + SECONDS:
                write()
                written = time.monotonic()
    return write()


def described(each: 'Reconstruction') -> str:
    """Says what was reconstructed and with what scores."""
    return f'{each.image}  {each.vit}  block {each.block}  PSNR {each.psnr:.2f} dB  SSIM {each.ssim:.3f}'


def main() -> None:
    args = parse_args()
    if find_spec('skimage') is None:
        sys.exit('PSNR and SSIM need scikit-image: pip install scikit-image')
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.engine import errors_in_words
    MMLogger.get_instance('deep_image_prior', log_level='WARNING')
    try:
        with errors_in_words():
            written = reconstruct(args)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f'written: {", ".join(map(str, written))}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped: the same command goes on with the reconstruction that was not finished')

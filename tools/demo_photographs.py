"""Real streets: trains a head on a frozen DINOv2 (ViT-S/14) for CamVid, measures it and draws what it sees.

What is missing is downloaded: the ViT (88 MB) and CamVid (about 190 MB). With both on the disk it takes about 9 minutes
on two CPU cores. Every step is an ordinary command and is printed before it runs. A finished step is not run again, so
an interrupted demonstration, or download, goes on where it stopped. The last line printed is the score, "mIoU: 60.00".
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import CLONE, ROOT, from_root, python

if TYPE_CHECKING:  # importing mmseg_gpt takes seconds, in which the user should have read what is going to happen
    from mmseg_gpt.lab.demo.steps import Step

CONFIG = os.path.relpath(CLONE / 'configs/demo/linear_dinov2-s_camvid.py', ROOT)
HOME = 'work_dirs/demo_photographs'
SEED = 0
QUICK_IMAGES, QUICK_ITERATIONS = dict(train=6, val=2, test=3), 4


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', type=Path, metavar='FILE', help='a file of a DINOv2 ViT-S/14 (default: '
                        'pretrained/dinov2_vits14_pretrain.pth, which is fetched if it is not there)')
    parser.add_argument('--data', type=Path, metavar='DIR', help='a copy of the SegNet tutorial\'s CamVid, with the '
                        'folders train, trainannot, val, ... (default: fetched into the work directory)')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help=f'where everything goes (default: {HOME}, with '
                        '--quick the same and _quick)')
    parser.add_argument('--quick', action='store_true', help='a few images and iterations: shows that every step '
                        'works, and learns next to nothing')
    parser.add_argument('--fresh', action='store_true', help='run finished steps again')
    args = parser.parse_args()
    work_dir = (args.work_dir or ROOT / (f'{HOME}_quick' if args.quick else HOME)).resolve()
    args.work_dir = from_root(work_dir)
    args.checkpoint, args.data = (path and path.resolve() for path in (args.checkpoint, args.data))
    return args


def make_steps(work_dir: Path, data: Path, weights: Path, half: bool, quick: bool) -> list['Step']:
    """Returns the commands, in order."""
    from mmseg_gpt.lab.demo.steps import Step
    adapted, lists = work_dir / 'adapted/adapted.pth', work_dir / 'lists'
    amp = ['--amp', 'bf16'] * half

    def settings(*splits: str) -> list[str]:
        return [setting for split in splits for setting in (
            f'{split}_dataloader.dataset.data_root={data}',
            f'{split}_dataloader.dataset.ann_file={(lists / split).resolve()}.csv')]
    shorter = [f'train_cfg.max_iters={QUICK_ITERATIONS}', f'train_cfg.val_interval={QUICK_ITERATIONS}',
               'train_dataloader.batch_size=3', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1',
               f'param_scheduler.1.end={QUICK_ITERATIONS}'] * quick
    train = python('train', CONFIG, '--overwrite', '--keep-features', *amp, '--work-dir', adapted.parent,
                   '--cfg-options', *settings('train', 'val'), *['val_cfg.fp16=True'] * half,
                   f'model.backbone.init_cfg.checkpoint={weights}', f'randomness.seed={SEED}', *shorter)
    test = python('test', CONFIG, adapted, *amp, '--work-dir', work_dir / 'test', '--out', work_dir / 'predictions',
                  '--cfg-options', *settings('test'))
    return [Step('train', 'freeze the ViT; keep its features, and train a linear head on them', train, (adapted, ),
                 40 if quick else 400),
            Step('test', 'segment the test images, and measure', test, (work_dir / 'test/metrics.json', ),
                 15 if quick else 90)]


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: takes the running command along
    print(f'Demonstration in {args.work_dir}. A finished step is not run again; --fresh runs all of them.', flush=True)
    from mmseg_gpt.checkpoints import CheckpointError
    from mmseg_gpt.downloads import DownloadError
    from mmseg_gpt.environment import available_cpus
    from mmseg_gpt.lab.demo import streets
    from mmseg_gpt.lab.demo.steps import run_steps
    from mmseg_gpt.lab.demo.streets_report import collect, write_report

    def say(sentence: str) -> None:
        print(sentence, flush=True)
    os.chdir(ROOT)  # the commands are run and shown as from there
    try:
        weights = streets.find_weights(args.checkpoint, Path('pretrained'), say)
        streets.check_weights(weights)
        data = streets.find_camvid(args.data, Path(HOME), say)
    except (CheckpointError, DownloadError) as error:
        raise SystemExit(str(error)) from error
    streets.write_lists(args.work_dir / 'lists', data, QUICK_IMAGES if args.quick else streets.FILES)
    half = streets.half_is_faster()
    say(f'CPUs: {available_cpus()}; computing in {"bfloat16" if half else "float32"}, which is faster here\n')
    steps = make_steps(args.work_dir, data.resolve(), weights, half, args.quick)
    seconds = run_steps(steps, args.work_dir, args.fresh, forked=True)
    write_report(args.work_dir, data, collect(args.work_dir, data, streets.name_of_weights(weights), seconds, SEED))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:  # between the steps; a running step is stopped where it was started
        sys.exit('\nstopped; run it again to go on')

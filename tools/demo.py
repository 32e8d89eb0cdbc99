"""The real thing, small: pretrain, adapt with gated prompts, evaluate and draw, in minutes on two CPU cores.

Segmentation of drawn scenes; or, with --classification, drawn shapes.

Every step is an ordinary command of this repository and is printed before it runs. A finished step is not
run again, so an interrupted demo goes on where it stopped; --fresh begins from the start.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arguments import CLONE, ROOT, from_root, python

if TYPE_CHECKING:  # importing mmseg_gpt takes seconds, in which the user should have read what is going to happen
    from mmseg_gpt.lab.demo.steps import Step

MAE, GPT, VIT, SHAPES = (os.path.relpath(CLONE / f'configs/demo/{name}.py', ROOT) for name in (
    'mae_pretrain_sample', 'setr_pup_gpt_mae_sample', 'vit_pretrain_shapes', 'cls_gpt_shapes'))
HOME, SHAPES_HOME = 'work_dirs/demo', 'work_dirs/demo_classification'  # as in the configs; others need options
LINEAR = ('model.backbone.prompt=None', 'model.backbone.temperature=False')
SEED = 0


class Extent(NamedTuple):
    """How much is done.

    Attributes:
        images: Number of images in 'training' and in 'validation'; of each class, for classification, where 'test'
            and 'pretraining' have numbers too.
        seconds: How long each step takes on two cores.
        options: Settings of the configs, by step.
    """
    images: dict[str, int]
    seconds: dict[str, int]
    options: dict[str, tuple[str, ...]] = {}


FULL = Extent(
    dict(training=1500, validation=100),
    dict(dataset=19, mae=170, untrained=11, adapt=185, test=9, test_tta=27, gates=2, attention=3))
QUICK = Extent(
    dict(training=48, validation=8),
    dict(dataset=10, mae=3, untrained=5, adapt=10, test=3, test_tta=5, gates=2, attention=3),
    dict(mae=('train_dataloader.batch_size=8', 'train_cfg.max_iters=4', 'param_scheduler.0.end=2',
              'param_scheduler.1.begin=2', 'param_scheduler.1.end=4'),
         adapt=('train_dataloader.batch_size=4', 'train_cfg.max_iters=20', 'train_cfg.val_interval=20',
                'param_scheduler.0.end=20')))
FULL_SHAPES = Extent(
    dict(pretraining=400, training=300, test=100),
    dict(dataset=13, pretrain=59, adapt=30, test=2, linear=17, test_linear=2))
SHORT = ('train_cfg.max_iters=4', 'param_scheduler.0.end=2', 'param_scheduler.1.begin=2', 'param_scheduler.1.end=4')
QUICK_SHAPES = Extent(
    dict(pretraining=4, training=4, test=6),
    dict(dataset=8, pretrain=3, adapt=3, test=2, linear=3, test_linear=2),
    dict(pretrain=SHORT, adapt=SHORT))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--classification', action='store_true', help='classify drawn shapes, instead of segmenting '
                        'drawn scenes')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='where everything goes, the dataset too '
                        f'(default: {HOME} or {SHAPES_HOME}, with --quick the same and _quick)')
    parser.add_argument('--quick', action='store_true', help='a few images and iterations: shows in a minute or two '
                        'that every step works, and learns next to nothing')
    parser.add_argument('--fresh', action='store_true', help='run finished steps again')
    args = parser.parse_args()
    home = SHAPES_HOME if args.classification else HOME
    work_dir = (args.work_dir or ROOT / (f'{home}_quick' if args.quick else home)).resolve()
    args.work_dir = from_root(work_dir)
    return args


def options(*settings: str) -> list[str]:
    """Returns the arguments that change settings of a config, if there are any."""
    return ['--cfg-options', *settings] if settings else []


def make_steps(work_dir: Path, extent: Extent) -> list['Step']:
    """Returns the commands, in order. Options are only given where they differ from what the configs say."""
    from mmseg_gpt.lab.demo.steps import Step
    from mmseg_gpt.lab.drawn.dataset import image_path
    data, mae, untrained, adapted = (work_dir / path for path in (
        'data', 'mae/mae.pth', 'untrained/adapted.pth', 'adapted/adapted.pth'))
    moved = work_dir != Path(HOME)
    train, val, test = ([f'{name}_dataloader.dataset.data_root={data}'] * moved for name in ('train', 'val', 'test'))
    weights = [f'model.backbone.init_cfg.checkpoint={mae}'] * moved
    once = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'optim_wrapper.optimizer.lr=0']
    commands = [
        ('dataset', 'draw the sample dataset', data / 'manifest.json',
         python('make_sample_dataset', '--out', data, '--images', extent.images['training'],
                '--val-images', extent.images['validation'], '--seed', SEED)),
        ('mae', 'pretrain a small ViT on its images, without labels (MAE, mmpretrain)', mae,
         python('train', MAE, '--overwrite', '--work-dir', mae.parent,
                *options(*train, *extent.options.get('mae', ())))),
        ('untrained', 'how good are untrained prompts and heads? One iteration with learning rate 0', untrained,
         python('train', GPT, '--overwrite', '--work-dir', untrained.parent, *options(*train, *val, *weights, *once))),
        ('adapt', 'freeze the ViT; train gated prompts, temperatures and SETR-PUP heads', adapted,
         python('train', GPT, '--overwrite', '--work-dir', adapted.parent,
                *options(*train, *val, *weights, *extent.options.get('adapt', ())))),
        ('test', 'evaluate on the validation images, single-scale', work_dir / 'test/metrics.json',
         python('test', GPT, adapted, '--work-dir', work_dir / 'test', '--out', work_dir / 'predictions',
                '--dataset-numbers',
                *options(*test))),
        ('test_tta', 'evaluate at four scales with flip', work_dir / 'test/metrics_tta.json',
         python('test', GPT, adapted, '--tta', '--work-dir', work_dir / 'test', *options(*test))),
        ('gates', 'draw what the gates learnt', work_dir / 'gates.png',
         python('plot_gates', untrained, adapted, '--names', 'untrained', 'adapted', '--out', work_dir / 'gates.png')),
        ('attention', 'draw what CLS attends to, with and without prompts and temperatures',
         work_dir / 'attention.png',
         python('plot_attention', GPT, adapted, image_path(data, 'validation', 3), '--out',
                work_dir / 'attention.png')),
    ]
    return [Step(name, title, command, (output, ), extent.seconds[name]) for name, title, output, command in commands]


def make_shapes_steps(work_dir: Path, extent: Extent) -> list['Step']:
    """Returns the commands for classification, as :func:`make_steps` does for segmentation."""
    from mmseg_gpt.lab.demo.steps import Step
    data, vit = work_dir / 'data', work_dir / 'pretrained/vit.pth'
    moved = work_dir != Path(SHAPES_HOME)
    train, test = ([f'{name}_dataloader.dataset.data_root={data}'] * moved for name in ('train', 'test'))
    weights = [f'model.backbone.init_cfg.checkpoint={vit}'] * moved
    short = extent.options.get('adapt', ())
    commands = [
        ('dataset', 'draw shapes, and blobs to pretrain on', data / 'manifest.json',
         python('make_sample_dataset', '--shapes', '--out', data, '--images', extent.images['training'], '--val-images',
                extent.images['test'], '--pretrain-images', extent.images['pretraining'], '--seed', SEED)),
        ('pretrain', 'train a small ViT to tell blobs apart, which are none of the shapes', vit,
         python('train', VIT, '--overwrite', '--work-dir', vit.parent,
                *options(*train, *extent.options.get('pretrain', ()))))]
    for name, tested, title, method in (('adapt', 'test', 'gated prompts, temperatures and a linear head', ()),
                                        ('linear', 'test_linear', 'the linear head alone, for comparison', LINEAR)):
        trained = work_dir / name / 'adapted.pth'
        commands += [
            (name, f'freeze the ViT; train {title}', trained,
             python('train', SHAPES, '--overwrite', '--work-dir', trained.parent,
                    *options(*train, *test, *weights, *short, *method))),
            (tested, 'evaluate on the test images', work_dir / tested / 'metrics.json',
             python('test', SHAPES, trained, '--work-dir', work_dir / tested, *options(*test, *method)))]
    return [Step(name, title, command, (output, ), extent.seconds[name]) for name, title, output, command in commands]


def introduction(work_dir: Path) -> str:
    """Says what to know before the first step."""
    lines = [f'Demo in {work_dir}. The steps are the commands shown; their output goes to {work_dir / "steps"}/.',
             'A finished step is not run again; --fresh runs all of them.']
    if Path(sys.prefix).resolve() == (ROOT / '.venv').resolve():  # as with `make demo`, which activates nothing
        lines.append('(To run one of these yourself: . .venv/bin/activate)')
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: takes the running command along
    print(introduction(args.work_dir), flush=True)
    from mmseg_gpt.environment import available_cpus
    from mmseg_gpt.lab.demo.steps import run_steps
    os.chdir(ROOT)  # the commands are run and shown as from there
    print(f'CPUs: {available_cpus()}\n', flush=True)
    if args.classification:
        extent, steps = QUICK_SHAPES if args.quick else FULL_SHAPES, make_shapes_steps
    else:
        extent, steps = QUICK if args.quick else FULL, make_steps
    seconds = run_steps(steps(args.work_dir, extent), args.work_dir, args.fresh, forked=True)
    if args.classification:
        from mmseg_gpt.lab.demo.shapes_report import collect, write_report
        write_report(args.work_dir, collect(args.work_dir, seconds, SEED), SHAPES, extent.images['test'])
    else:
        from mmseg_gpt.lab.demo.report import write_report
        from mmseg_gpt.lab.demo.results import collect
        write_report(args.work_dir, collect(args.work_dir, extent.images, seconds, SEED), extent.images['validation'])


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:  # between the steps; a running step is stopped where it was started
        sys.exit('\nstopped')

"""Measures how many images per second the training pipeline of a config gives, and which transforms take its time."""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from arguments import add_config_arguments, positive

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.lab.benchmark.loading import Cost

DRAWN = 32


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='The loader is that of mmseg-gpt train, which checks and seeds each sample. It is '
        'measured in turns with the same loader without checks and seeds. Images per second are medians of the rounds.')
    add_config_arguments(parser)
    parser.add_argument('--workers', type=counts, default='0,1,2,4', metavar='N,N,...',
                        help='numbers of worker processes to measure; 0 is the main process (default: %(default)s)')
    parser.add_argument('--batches', type=positive(int), default=8, metavar='N', help='batches in each round (default: '
                        '%(default)s)')
    parser.add_argument('--rounds', type=positive(int), default=3, metavar='N', help='measurements of each loader '
                        '(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the order of images and of their augmentations '
                        '(default: %(default)s)')
    parser.add_argument('--generate', type=positive(int), metavar='N', help='draw N images of ADE20K\'s usual sizes, '
                        f'and measure with them (default: draw {DRAWN} if the dataset is missing)')
    parser.add_argument('--wanted', type=positive(int), default=400, metavar='N', help='say how many workers give '
                        'N images per second (default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers there')
    return parser.parse_args()


def counts(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(',')]
    if min(numbers) < 0:
        raise ValueError
    return list(dict.fromkeys(numbers))


def draw(cfg: 'Config', number: int, folder: Path) -> None:
    """Draws images, and makes them the training data of the config."""
    from rich.progress import track

    from mmseg_gpt.lab.benchmark.loading import draw_images
    from mmseg_gpt.settings import unwrapped_datasets
    prefix = dict(img_path='images', seg_map_path='annotations')
    draw_images(*(folder / name for name in prefix.values()), number,
                progress=lambda numbers: track(numbers, 'drawing images'))
    for dataset in unwrapped_datasets(cfg.train_dataloader.dataset):
        dataset.update(data_root=str(folder), data_prefix=prefix, ann_file='')


def measure(cfg: 'Config', args: argparse.Namespace) -> dict:
    """Measures each number of workers and the transforms, prints the results as they come, and returns them."""
    from mmengine.runner import Runner
    from rich.progress import track

    from mmseg_gpt.engine.loaders import training_loader
    from mmseg_gpt.lab.benchmark.loading import compare_rates, ratio_range, time_transforms, workers_needed
    rates = {}
    for workers in args.workers:
        config = with_workers(cfg.train_dataloader, workers)
        loaders = dict(ours=partial(training_loader, config, args.seed),
                       plain=partial(Runner.build_dataloader, config, args.seed))
        found = compare_rates(loaders, args.batches, args.rounds, lambda r, w=workers: track(r, f'{w} workers'))
        rates[workers] = dict(found, ratio=ratio_range(found['ours'], found['plain']))
        print(as_text(workers, rates[workers]), flush=True)
    images = args.batches * cfg.train_dataloader.batch_size
    loader = training_loader(with_workers(cfg.train_dataloader, 0), args.seed)
    costs = time_transforms(loader, images, lambda places: track(places, 'transforms'))
    print(table(costs))
    needed = workers_needed({workers: median(found['ours']) for workers, found in rates.items()}, args.wanted)
    print(f'{args.wanted} images/s need {needed} workers of this machine, if each gives as many as the best above')
    return dict(rates=rates, transforms=[cost._asdict() for cost in costs], wanted=args.wanted, workers_needed=needed)


def with_workers(dataloader: dict, workers: int) -> dict:
    """Copies a data loader config with another number of workers, which end after each pass over the data."""
    config = dict(dataloader, num_workers=workers, persistent_workers=False)
    if not workers:
        config.pop('prefetch_factor', None)
    return config


def as_text(workers: int, found: dict) -> str:
    """Writes the measurement with a number of workers as a line."""
    ratio = found['ratio']
    return (f'{workers} workers: {median(found["ours"]):.1f} images/s, without checks and seeds '
            f'{median(found["plain"]):.1f}; ratio {ratio["median"]:.3f} ({ratio["low"]:.3f} to {ratio["high"]:.3f})')


def table(costs: list['Cost']) -> str:
    """Writes the time of each transform as a table."""
    from prettytable import PrettyTable
    rows = PrettyTable(['transform', 'ms per image (median)', 'share'], align='r')
    rows.align['transform'] = 'l'
    rows.add_rows([[cost.name, f'{cost.milliseconds:.2f}', f'{cost.share:.1%}'] for cost in costs])
    return str(rows)


def main() -> None:
    args = parse_args()
    from mmengine.registry import DefaultScope  # after the arguments, as importing takes seconds
    from mmengine.utils.dl_utils import set_multi_processing

    from mmseg_gpt.checks.missing import missing_datasets
    from mmseg_gpt.engine import read_config
    from mmseg_gpt.environment import available_cpus
    cfg = read_config(args.config, args.cfg_options, launcher='none')
    set_multi_processing(**cfg.get('env_cfg', {}).get('mp_cfg', {}))  # as the runner does
    drawn = args.generate or (DRAWN if missing_datasets([cfg.train_dataloader.dataset]) else 0)
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        if drawn:
            draw(cfg, drawn, Path(folder))
        print(f'{f"{drawn} drawn images" if drawn else cfg.train_dataloader.dataset.get("data_root")}, batches of '
              f'{cfg.train_dataloader.batch_size}, {available_cpus()} CPUs', flush=True)
        found = dict(config=args.config, seed=args.seed, drawn=drawn, **measure(cfg, args))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()

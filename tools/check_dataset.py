"""Checks every image and label of a config's datasets, and reports problems and how often classes occur."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_config_arguments

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_gpt.datasets import Survey

SPLITS = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='The exit code is 1 if there is a problem: a file that cannot be decoded, sizes '
        'that differ, wrong label values, a rotated image, files without a partner, a training image in another '
        'split, or images that the dataset leaves out, for which the option that takes them is named. A class that '
        'never occurs is only reported. After Ctrl-C nothing is written.')
    add_config_arguments(parser)
    parser.add_argument('--split', choices=(*SPLITS, 'all'), default='all', help='split to check (default: '
                        '%(default)s; a test split that is the same as val is then checked once)')
    parser.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one for each CPU)')
    parser.add_argument('--out', default='dataset_report.json', metavar='FILE', help='write all numbers and problems '
                        'there, and the shares of the classes into a .png beside it (default: %(default)s)')
    args = parser.parse_args()
    if args.workers is not None and args.workers < 1:
        parser.error(f'--workers must be at least 1, got {args.workers}')
    if Path(args.out).suffix != '.json' or not Path(args.out).resolve().parent.is_dir():
        parser.error(f'--out {args.out}: give a .json file in a folder that exists')
    return args


def datasets_of(cfg: 'Config', split: str) -> dict[str, dict]:
    """Returns the configs of the datasets to check, by split.

    Raises:
        SystemExit: the config has none.
    """
    wanted = SPLITS if split == 'all' else (split, )
    configs = {s: cfg[f'{s}_dataloader'].dataset for s in wanted if cfg.get(f'{s}_dataloader')}
    if split == 'all' and configs.get('test') == configs.get('val'):
        configs.pop('test', None)
    if not configs:
        raise SystemExit(f'the config has no {split}_dataloader' if split != 'all' else 'the config has no data loader')
    return configs


def survey_split(cfg: 'Config', split: str, dataset_config: dict, workers: int | None) -> 'Survey':
    """Builds one dataset and surveys all of it, with a progress bar."""
    from mmengine.registry import DefaultScope
    from rich.progress import track

    from mmseg_gpt.checks.data import build_dataset, wrong_classes
    from mmseg_gpt.datasets import Survey, survey
    from mmseg_gpt.environment import available_cpus
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        dataset, problems = build_dataset(dataset_config)
    if dataset is None:
        return Survey((), problems=problems)
    found = survey(dataset, workers or available_cpus(), lambda results, total: track(results, f'{split:5}', total))
    found.problems += [problem for problem in wrong_classes(cfg, dataset, f'{split}_dataloader')
                       if problem not in found.problems]
    return found


def write(surveys: dict[str, 'Survey'], out: Path) -> None:
    """Writes the JSON file, completely or not at all, and the picture."""
    from mmengine.fileio import dump

    from mmseg_gpt.analysis.dataset_figures import plot_classes
    from mmseg_gpt.datasets.report import as_numbers
    from mmseg_gpt.files import replacing
    with replacing(out) as unfinished:
        dump(as_numbers(surveys), unfinished, file_format='json', indent=2)
    drawn = plot_classes(surveys, out.with_suffix('.png'))
    print(f'written: {out}' + (f' and {out.with_suffix(".png")}' if drawn else ''))


def main() -> None:
    args = parse_args()
    from mmseg_gpt.checks.before import refuse
    from mmseg_gpt.checks.missing import missing_datasets
    from mmseg_gpt.datasets.report import as_text, training_copies  # after the arguments, as importing takes seconds
    from mmseg_gpt.engine import errors_in_words, read_config
    cfg = read_config(args.config, args.cfg_options, launcher='none')
    configs = datasets_of(cfg, args.split)
    refuse(missing_datasets(list(configs.values())), [])
    with errors_in_words():
        surveys = {split: survey_split(cfg, split, config, args.workers) for split, config in configs.items()}
    print('\n\n'.join(as_text(split, found) for split, found in surveys.items()))
    same = training_copies(surveys)
    print(f'\nimages both in train and in another split ({len(same)}): {"; ".join(same[:5]) or "none"}')
    write(surveys, Path(args.out))
    if same or any(found.problems for found in surveys.values()):
        sys.exit(1)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped; nothing was written')

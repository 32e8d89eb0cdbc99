"""Answers several tasks, of segmentation and of classification, with one frozen ViT in memory.

Each task is a config and a checkpoint of this project, whole or with adapters only. All must have been trained
on the same pretrained ViT. Every image goes through every task, or only through the task named in front of it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import check_device, configs_command

if TYPE_CHECKING:
    from mmseg_gpt.apis import AdapterPool
    from mmseg_gpt.apis.answers import LabelWriter

EXAMPLE = """\
example:
  %(prog)s --task ade setr_pup_gpt_mae_ade20k ade.pth --task cub cls_gpt_mae_cub cub.pth \\
      --images photos/*.jpg ade:street.jpg --out predictions --json predictions.json

  It prints a line for each answer: class and score, or the largest classes and their share of the pixels. --out writes
  the label maps of a segmentation to predictions/ade/labels and pictures to predictions/ade/overlays, under the paths
  of the images below the folder that all images have in common. Classes are numbered from 0, as in the model, or with
  --dataset-numbers as in the label files of the dataset.

Exit code: 0; 1 if a checkpoint or an image cannot be used; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', nargs=3, action='append', required=True, dest='tasks', metavar=(
        'NAME', 'CONFIG', 'CHECKPOINT'), help='a task: a name of your choice, its config (a file or a name, '
        f'which {configs_command()} lists) and its checkpoint; give --task again for each further one')
    parser.add_argument('--images', nargs='+', required=True, metavar='[NAME:]IMAGE',
                        help='image files; with NAME: for that task only')
    parser.add_argument('--out', type=Path, metavar='DIR', help='write label maps and pictures of segmentations there')
    parser.add_argument('--dataset-numbers', action='store_true', help='number the classes in label maps as the label '
                        'files of the task\'s test_dataloader do (with reduce_zero_label: from 1)')
    parser.add_argument('--probabilities', action='store_true', help='write the probabilities of all classes: of '
                        'segmentations in --out, as probabilities/*.npy (float16; classes, height, width) and the '
                        'highest as confidence/*.png (255 is 1); of classifications in --json')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all answers there')
    parser.add_argument('--vit', metavar='FILE', help='the pretrained ViT of all tasks (default: the one that each '
                        'config names)')
    parser.add_argument('--batch', type=int, default=8, metavar='N', help='answers computed together (default: '
                        '%(default)s)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is a GPU')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32', help='type of the '
                        'ViT in memory; bfloat16 and float16 (on a GPU only) compute in mixed precision (default: '
                        '%(default)s)')
    args = parser.parse_args()
    check_tasks(args, parser)
    args.requests = [request for text in args.images for request in read_request(text, args.tasks, parser)]
    check_outputs(args, parser)
    return args


def check_tasks(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses task names that are taken or cannot name a folder, missing files, and a batch below 1."""
    names = [name for name, _, _ in args.tasks]
    for name, _, checkpoint in args.tasks:
        if names.count(name) > 1:
            parser.error(f'two tasks are called {name}')
        if name in ('', '.', '..') or set(name) & set(':/\\'):
            parser.error(f'"{name}" cannot be the name of a task: leave out : / \\')
        if not Path(checkpoint).is_file():
            parser.error(f'there is no checkpoint {checkpoint}')
    if args.vit and not Path(args.vit).is_file():
        parser.error(f'there is no pretrained ViT {args.vit}')
    if args.batch < 1:
        parser.error(f'--batch must be at least 1, got {args.batch}')


def read_request(text: str, tasks: list[list[str]], parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Reads a ``[NAME:]IMAGE``; returns pairs of a task and the image file."""
    names = [name for name, _, _ in tasks]
    if Path(text).is_file():
        return [(name, text) for name in names]
    name, colon, path = text.partition(':')
    if colon and name not in names:
        parser.error(f'{text}: there is no task "{name}"; the tasks are {", ".join(names)}')
    if not colon or not Path(path).is_file():
        parser.error(f'there is no image {path or text}')
    return [(name, path)]


def check_outputs(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses a missing folder for the answers, and options without what they are about."""
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f'--json {args.json}: there is no such folder')
    if args.dataset_numbers and not args.out:
        parser.error('--dataset-numbers is about the label maps of --out DIR')
    if args.probabilities and not (args.out or args.json):
        parser.error('--probabilities needs --out DIR for segmentations, or --json FILE for classifications')


def build_pool(args: argparse.Namespace) -> 'AdapterPool':
    """Loads all tasks.

    Raises:
        SystemExit: a config is missing, or has no frozen ViT or no preprocessing; or there is no such device.
    """
    import torch

    from mmseg_gpt.apis import AdapterPool, storage_bytes
    from mmseg_gpt.engine.config import find_config
    check_device(args.device)
    try:
        pool = AdapterPool(args.device, getattr(torch, args.dtype))
        for name, config, checkpoint in args.tasks:
            cfg = find_config(config)
            if args.vit:
                key = (cfg.model.backbone.get('init_cfg') or {}).get('key')
                cfg.model.backbone.init_cfg = dict(type='PretrainedViT', checkpoint=args.vit, key=key)
            pool.add(name, cfg, checkpoint)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    separate = sum(storage_bytes([task.model]) for task in pool.tasks.values())
    print(f'{len(pool.tasks)} tasks on {pool.device} in {pool.nbytes / 2**20:,.1f} MiB; as separate models they would '
          f'take {separate / 2**20:,.1f}', flush=True)
    return pool


def make_writers(pool: 'AdapterPool', args: argparse.Namespace) -> dict[str, 'LabelWriter']:
    """Makes the writers of the segmentations, by task; none without ``--out``.

    Raises:
        SystemExit: it is not known which numbers the label files of a task's dataset have.
    """
    from mmseg_gpt.apis.answers import LabelWriter
    try:
        return {name: LabelWriter(task, args.out / name, args.dataset_numbers) for name, task in pool.tasks.items()
                if args.out and hasattr(task.model, 'decode_head')}
    except ValueError as error:
        raise SystemExit(f'--dataset-numbers: {error}') from error


def predict(pool: 'AdapterPool', args: argparse.Namespace, answers: list[dict]) -> None:
    """Answers all requests, prints and writes each answer, and adds it to ``answers``."""
    from rich.progress import track

    from mmseg_gpt.apis.answers import as_line, as_numbers
    from mmseg_gpt.files import names_below
    writers, names = make_writers(pool, args), names_below(image for _, image in args.requests)
    starts = range(0, len(args.requests), args.batch)
    for start in track(starts, 'predicting', disable=len(starts) < 2):
        requests = args.requests[start:start + args.batch]
        files = [writers[name].probability_file(names[image]) if args.probabilities and name in writers else None
                 for name, image in requests]
        for (name, image), sample in zip(requests, pool.predict(requests, files)):
            found = as_numbers(pool.tasks[name], sample, args.probabilities)
            print(f'{name}  {image}  {as_line(found)}', flush=True)
            if name in writers:
                found |= writers[name].write(image, sample, names[image])
            answers.append(dict(task=name, image=image, **found))


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.checks.before import refuse
    from mmseg_gpt.datasets import check_headers
    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.files import replacing
    MMLogger.get_instance('predict', log_level='WARNING')
    refuse([], [problem for image in dict.fromkeys(image for _, image in args.requests)
                for problem in check_headers(image)])
    answers: list[dict] = []
    with errors_in_words():
        pool = build_pool(args)
        try:
            predict(pool, args, answers)
        finally:
            if args.json:  # also after an interrupt, for the answers so far
                with replacing(args.json) as unfinished:
                    unfinished.write_text(json.dumps(answers, indent=2) + '\n')
                print(f'written: {args.json}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')

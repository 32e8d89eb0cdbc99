"""Answers several tasks, of segmentation and of classification, with one frozen ViT in memory.

Each task is a config and a checkpoint of this project, whole or with adapters only. All must have been trained
on the same pretrained ViT. Every image goes through every task, or only through the task named in front of it.
"""

import argparse
import json
import sys
import time
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_shared_vit_arguments, add_task_argument, check_device, checkpoint_is_there

if TYPE_CHECKING:
    from mmseg_gpt.apis import AdapterPool
    from mmseg_gpt.apis.answers import LabelWriter

SECONDS = 10  # between two words on how far a large image is
EXAMPLE = """\
examples:
  %(prog)s --task mine work_dirs/mine --images photos --out predictions
  %(prog)s --task ade setr_pup_gpt_mae_ade20k ade.pth --task cub cls_gpt_mae_cub cub.pth \\
      --images photos ade:street.jpg --out predictions --json predictions.json

  It prints a line for each answer: class and score, or the largest classes and their share of the pixels. --out writes
  the label maps of a segmentation to predictions/ade/labels, pictures to predictions/ade/overlays and the colours of
  the classes to predictions/ade/legend.png. Labels and pictures lie under the paths of the images below the folder
  that all images have in common. Classes are numbered from 0, as in the model, or with --dataset-numbers as in the
  label files of the dataset. An image that cannot be predicted is passed over and named at the end.

  Label maps of GeoTIFFs are GeoTIFFs with their georeference, if rasterio is installed.

Exit code: 0; 1 if a checkpoint or an image cannot be used; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_argument(parser)
    parser.add_argument('--images', nargs='+', required=True, metavar='[NAME:]IMAGE', help='image files, folders with '
                        'all that is below them, patterns such as "photos/**/*.jpg", and .txt files with one of these '
                        'on each line; with NAME: for that task only')
    parser.add_argument('--tta', action='store_true', help="answer by the mean of several views of an image, by the "
                        "config's tta_pipeline")
    parser.add_argument('--out', type=Path, metavar='DIR', help='write label maps and pictures of segmentations there')
    parser.add_argument('--dataset-numbers', action='store_true', help='number the classes in label maps as the label '
                        'files of the task\'s test_dataloader do (with reduce_zero_label: from 1)')
    parser.add_argument('--probabilities', action='store_true', help='write the probabilities of all classes: of '
                        'segmentations in --out, as probabilities/*.npy (float16; classes, height, width) and the '
                        'highest as confidence/*.png (255 is 1); of classifications in --json')
    parser.add_argument('--confidence', action='store_true', help='write the probability of the predicted class of '
                        'each pixel in --out, as confidence/*.png (255 is 1)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all answers there')
    parser.add_argument('--tile', type=int, metavar='PIXELS', help='cut images of segmentations into tiles of this '
                        'side, each of which is answered like an image of its own, in bounded memory')
    parser.add_argument('--overlap', type=float, metavar='SHARE', help='share of a tile that the next one covers too '
                        '(default: 0.25)')
    parser.add_argument('--batch', type=int, default=8, metavar='N', help='answers computed together (default: '
                        '%(default)s)')
    add_shared_vit_arguments(parser)
    args = parser.parse_args()
    check_tasks(args, parser)
    check_tiles(args, parser)
    args.asked = [read_request(text, args.tasks, parser) for text in args.images]
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
        if not checkpoint_is_there(checkpoint):
            parser.error(f'there is no checkpoint {checkpoint}')
    if args.vit and not Path(args.vit).is_file():
        parser.error(f'there is no pretrained ViT {args.vit}')
    if args.batch < 1:
        parser.error(f'--batch must be at least 1, got {args.batch}')


def check_tiles(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses tiles that cannot be."""
    if args.tile is not None and args.tile < 2:
        parser.error(f'--tile must be at least 2, got {args.tile}')
    if args.overlap is not None and not (args.tile and 0 <= args.overlap < 1):
        parser.error(f'--overlap must be from 0 to below 1, and needs --tile; got {args.overlap}')
    if args.tile and args.tta:
        parser.error('choose --tile or --tta')


def read_request(text: str, tasks: list[list[str]], parser: argparse.ArgumentParser) -> tuple[list[str], str]:
    """Reads a ``[NAME:]IMAGE``; returns the tasks, and the file, folder, pattern or list."""
    names = [name for name, _, _ in tasks]
    if is_there(text):
        return names, text
    name, colon, path = text.partition(':')
    if colon and name not in names:
        parser.error(f'{text}: there is no task "{name}"; the tasks are {", ".join(names)}')
    if not colon or not is_there(path):
        parser.error(f'there is no image {path or text}')
    return [name], path


def is_there(text: str) -> bool:
    """Says whether a text names files."""
    return bool(text) and (Path(text).exists() or bool(glob(text, recursive=True)))


def list_requests(args: argparse.Namespace) -> None:
    """Lists pairs of a task and an image as ``args.requests``, and names what is written as ``args.names``.

    Raises:
        SystemExit: a folder, pattern or list names no image; or nothing can be written to --out.
    """
    from mmseg_gpt.datasets.left_out import READ, UNREAD
    from mmseg_gpt.files import listed_files, make_folder, names_below
    try:
        files = [(tasks, listed_files([text], READ | UNREAD, args.out)) for tasks, text in args.asked]
        if args.out:
            make_folder(args.out)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    args.requests = [*dict.fromkeys((name, file) for tasks, found in files for file in found for name in tasks)]
    folders = [text if Path(text).is_dir() else str(Path(file).parent) for (_, text), (_, found) in zip(
        args.asked, files) for file in found]
    args.names = names_below([image for _, image in args.requests], dict.fromkeys(folders))


def check_outputs(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses a missing folder for the answers, and options without what they are about."""
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f'--json {args.json}: there is no such folder')
    if args.dataset_numbers and not args.out:
        parser.error('--dataset-numbers is about the label maps of --out DIR')
    if args.confidence and not args.out:
        parser.error('--confidence is about segmentations in --out DIR')
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
            pool.add(name, cfg, checkpoint, args.tta)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if args.vit and all(task.whole for task in pool.tasks.values()):
        raise SystemExit('--vit is for checkpoints that leave the ViT out, and these hold it: leave it out')
    separate = sum(storage_bytes([task.model]) for task in pool.tasks.values())
    number = f'{len(pool.tasks)} task{"s" * (len(pool.tasks) > 1)}'
    print(f'{number} on {pool.device} in {pool.nbytes / 2**20:,.1f} MiB; as separate models '
          f'{separate / 2**20:,.1f} MiB', flush=True)
    return pool


def check_meaning(pool: 'AdapterPool', tile: int | None, out: Path | None = None, json_file: Path | None = None,
                  probabilities: bool = False) -> None:
    """Refuses options that have no meaning for any of the tasks.

    Args:
        pool: The tasks.
        tile: What was given by the option of this name; so are the others.
        out: The folder of label maps.
        json_file: The file of answers.
        probabilities: Whether they are to be written.

    Raises:
        SystemExit: so it is; the message says what to do.
    """
    kinds = {task.segments for task in pool.tasks.values()}
    classified = 'and these tasks classify images: leave it out'
    if tile and True not in kinds:
        raise SystemExit(f'--tile cuts the images of segmentations, {classified}')
    if out and True not in kinds:
        raise SystemExit(f'--out is for the label maps of segmentations, {classified}, and give --json FILE to write '
                         'classes and scores')
    if probabilities and not (out or (False in kinds and json_file)):
        raise SystemExit('--probabilities of segmentations are written in --out DIR: give it too')


def make_writers(pool: 'AdapterPool', args: argparse.Namespace) -> dict[str, 'LabelWriter']:
    """Makes the writers of the segmentations, by task; none without ``--out``.

    Raises:
        SystemExit: it is not known which numbers the label files of a task's dataset have.
    """
    from mmseg_gpt.apis.answers import LabelWriter
    try:
        return {name: LabelWriter(task, args.out / name, args.dataset_numbers) for name, task in pool.tasks.items()
                if args.out and task.segments}
    except ValueError as error:
        raise SystemExit(f'--dataset-numbers: {error}') from error


def batches(args: argparse.Namespace) -> list[list[tuple[str, str]]]:
    """Divides the requests into those that are answered together; large images are alone."""
    from mmseg_gpt.datasets.headers import read_header
    from mmseg_gpt.segmentation.segmentor import LARGE_IMAGE
    large, args.rasters = {}, {image for image in args.names if is_raster(image, args)}
    for image in args.names:
        try:
            width, height = read_header(image).size
        except Exception:  # which is said when it is its turn
            width = height = 0
        large[image] = width * height > LARGE_IMAGE or args.tile or image in args.rasters
    found: list[list[tuple[str, str]]] = []
    for request in args.requests:
        if not found or len(found[-1]) == args.batch or large[request[1]] or large[found[-1][-1][1]]:
            found.append([])
        found[-1].append(request)
    return found


def is_raster(image: str, args: argparse.Namespace) -> bool:
    """Says whether an image is a GeoTIFF whose georeference can be kept; says why if it cannot."""
    from mmseg_gpt.apis.rasters import is_georeferenced
    if not is_georeferenced(image):
        return False
    if find_spec('rasterio') and not args.tta:
        return True
    why = 'with --tta' if args.tta else 'without rasterio: pip install "mmseg_gpt[geo]"'
    if args.out:
        print(f'{image}: its label map will have no georeference {why}')
    return False


def predict(pool: 'AdapterPool', args: argparse.Namespace, answers: list[dict]) -> list[str]:
    """Answers all requests, prints and writes each answer, and adds it to ``answers``.

    Returns:
        list: A sentence for each image that cannot be predicted.
    """
    from rich.progress import track

    from mmseg_gpt.datasets import PixelError, SampleError
    from mmseg_gpt.datasets.pairs import error_line
    writers, failed, together = make_writers(pool, args), [], batches(args)
    for requests in track(together, 'predicting', disable=len(together) < 2):
        turns = [requests]
        while turns:
            turn = turns.pop(0)
            try:
                answers += answer(pool, args, turn, writers)
            except Exception as error:  # of decoders, of transforms, of the model
                if len(turn) > 1:
                    turns = [[request] for request in turn]  # each gets a turn of its own
                    continue
                (name, image), = turn
                why = str(error) if isinstance(error, (SampleError, PixelError)) else f'{image}: {error_line(error)}'
                failed.append(why)
                answers.append(dict(task=name, image=image, error=why))
    return failed


def answer(pool: 'AdapterPool', args: argparse.Namespace, requests: list[tuple[str, str]],
           writers: dict[str, 'LabelWriter']) -> list[dict]:
    """Answers requests together; prints and writes the answers, and returns them as plain numbers."""
    from mmseg_gpt.apis.answers import as_line, as_numbers
    if len(requests) == 1 and in_tiles(pool, args, *requests[0]):
        return [answer_in_tiles(pool, args, *requests[0], writers)]
    files = [writers[name].probability_file(args.names[image]) if args.probabilities and name in writers else None
             for name, image in requests]
    for name, image in requests:
        pool.tasks[name].model.report_share = ShareProgress(image) if len(requests) == 1 else None
    samples = pool.predict(requests, files, args.confidence, small=True)
    answers = []
    for (name, image), sample in zip(requests, samples):
        found = as_numbers(pool.tasks[name], sample, args.probabilities)
        if name in writers:
            found |= writers[name].write(image, sample, args.names[image])
        answers.append(dict(task=name, image=image, **found))
        print(f'{name}  {image}  {as_line(found)}', flush=True)
    return answers


def in_tiles(pool: 'AdapterPool', args: argparse.Namespace, name: str, image: str) -> bool:
    """Says whether a task answers an image in tiles, or writes a GeoTIFF, which is done in the same way."""
    task = pool.tasks[name]
    return task.segments and bool(args.tile or (image in args.rasters and hasattr(task.model, 'patches')))


def answer_in_tiles(pool: 'AdapterPool', args: argparse.Namespace, name: str, image: str,
                    writers: dict[str, 'LabelWriter']) -> dict:
    """Answers a request in tiles; prints and writes the answer, and returns it as plain numbers."""
    from mmseg_gpt.apis.answers import as_line, as_numbers
    from mmseg_gpt.apis.label_files import write_raster
    from mmseg_gpt.apis.tiles import TaskLabeller, Tiling, predict_in_tiles
    task, writer, report = pool.tasks[name], writers.get(name), ShareProgress(image)
    tiling = Tiling(args.tile, 0.25 if args.overlap is None else args.overlap) if args.tile else None
    labeller = TaskLabeller(task, tiling, pool.dtype)
    if image in args.rasters:
        found = write_raster(writer, labeller, image, args.names[image], report, args.confidence,
                             args.probabilities and writer is not None)
    else:
        meta = dict(small=True, confidence=args.confidence)
        if args.probabilities and writer:
            meta['probabilities'] = str(writer.probability_file(args.names[image]))
        sample = predict_in_tiles(labeller, image, meta, report)
        found = as_numbers(task, sample) | (writer.write(image, sample, args.names[image]) if writer else {})
    print(f'{name}  {image}  {as_line(found)}', flush=True)
    return dict(task=name, image=image, **found)


class ShareProgress:
    """Says now and then how far an image is.

    Args:
        image: The image.
    """

    def __init__(self, image: str) -> None:
        self.image, self.start = image, time.monotonic()
        self.said = self.start

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.said > SECONDS and share < 1:
            from mmseg_gpt.wording import duration
            left = duration((now - self.start) * (1 - share) / share)
            print(f'{self.image}: {share:.0%} labelled, {left} left', flush=True)
            self.said = now


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.files import replacing
    MMLogger.get_instance('predict', log_level='WARNING')
    list_requests(args)
    answers: list[dict] = []
    with errors_in_words():
        pool = build_pool(args)
        check_meaning(pool, args.tile, args.out, args.json, args.probabilities)
        try:
            failed = predict(pool, args, answers)
        finally:
            if args.json:  # also after an interrupt, for the answers so far
                with replacing(args.json) as unfinished:
                    unfinished.write_text(json.dumps(answers, indent=2) + '\n')
                print(f'written: {args.json}')
        if failed:
            images = {answer['image'] for answer in answers if 'error' in answer}
            raise SystemExit('\n  * '.join([f'{len(images):,} of {len(args.names):,} images could not be predicted:',
                                           *dict.fromkeys(failed)]))


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')

"""From a folder to a finished model, in steps that can be interrupted: look, plan, train, test, report."""

import json
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from mmengine.config import Config

from ..checkpoints import CheckpointError, address_of, fetch, is_remote
from ..checks import check_files, check_run
from ..engine.config import find_launcher, read_config, set_resume
from ..engine.outcome import add_confusion, write_metrics
from ..engine.resume import POINTER
from ..files import file_sha256, replacing, seconds_between
from ..recipes.vits import settings_of_vit
from .config import patch_of, write_config
from .look import OwnData, Say, look
from .options import OwnDataError, Request
from .plan import Machine, Setup, Times, add_schedule, longest_ratio, make_plan
from .progress import USUAL_WARNINGS, QuietRunner, ShowProgressHook
from .report import ConfusionByImage, draw_extremes, scores_of_classes, write_report
from .timing import measure

STATE, RESULT, CONFIG = 'adapt.json', 'result.json', 'config.py'
SCORES = dict(segmentation=('mIoU', 'mIoU', 'IoU'), classification=('accuracy/top1', 'accuracy', 'recall'))


def work_dir_of(options: Request) -> Path:
    """Returns where all is written: the folder that was asked for, or one named after that of the images."""
    source = Path(options.folder or options.images).resolve()
    name = source.name if source.is_dir() else source.stem
    return Path(options.work_dir or Path('work_dirs') / name).absolute()


def carry_out(options: Request, say: Say, command: str, dry_run: bool = False) -> dict | None:
    """Adapts a ViT to a folder of images, or goes on where it was interrupted.

    Args:
        options: What is asked for.
        say: Function that gets each sentence for the user.
        command: The command, for the first lines of the config.
        dry_run: Whether to stop when the config is written.

    Returns:
        What is in ``result.json``; None for a dry run.

    Raises:
        OwnDataError: something is wrong with what was asked for or found.
        SystemExit: a check has found something wrong, or the training was interrupted.
    """
    work = work_dir_of(options)
    if find_launcher(None) != 'none':
        raise OwnDataError('adapt starts one process: write the config with --dry-run, and train it with torchrun ... '
                           f'-m mmseg_gpt train {work / CONFIG}')
    state = read_state(work, options)
    if (work / RESULT).is_file():
        say(f'{work} holds the finished result of this command; to train anew, remove it or give another --work-dir')
        return json.loads((work / RESULT).read_text(encoding='utf-8'))
    for words in USUAL_WARNINGS:
        warnings.filterwarnings('ignore', words)
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        say(sentence)
    weights = find_weights(options, say)
    data = look(options, work / 'data', tell)
    config, lists = work / CONFIG, {split: file_sha256(file) for split, file in data.lists.items()}
    if state.get('config') and config.is_file():
        check_same_classes(config, data)
        if (work / POINTER).is_file() and state.get('lists') not in (None, lists):
            raise OwnDataError(f'the images have changed since the training in {work} began, and some may be in '
                               'another split now, while a model must not be measured on images that it was trained '
                               'on: give another --work-dir, or put them back')
        told += state['told']
        say(f'going on with {config}')
    else:
        state.update(config=None, told=plan_and_write(options, weights, data, config, command, tell))
        state['config'] = file_sha256(config)
    state['lists'] = lists
    write_state(work, options, state)
    if dry_run:
        say(f'{config} is written; nothing was trained. Without --dry-run the same command trains with it')
        return None
    with spent(work, options, state, say):
        checkpoint = train(config, say)
        result = evaluate(config, checkpoint, data, say)
    result['seconds'] = round(state['seconds'], 1)
    finish(work, result, data, told)
    return result


def read_state(work: Path, options: Request) -> dict:
    """Reads what an earlier start of the same command left.

    Raises:
        OwnDataError: it had other options, and has trained or its config was edited since.
    """
    try:
        state = json.loads((work / STATE).read_text(encoding='utf-8'))
        earlier = Request(**state.pop('options') | dict(ignore=tuple(state['ignored'])))
    except (FileNotFoundError, NotADirectoryError):
        if (work / POINTER).is_file():
            raise OwnDataError(f'{work} holds the checkpoints of another run; give another --work-dir') from None
        return dict(seconds=0., told=[])
    except (ValueError, KeyError, TypeError) as error:
        raise OwnDataError(f'{work / STATE} cannot be read ({error}): remove {work}, or give another '
                           '--work-dir') from error
    changed = options.differences(earlier)
    if not changed:
        state['seconds'] += seconds_between(work / STATE, work.glob('*/*.log'))  # of a training that was killed
        return state
    edited = (work / CONFIG).is_file() and state.get('config') not in (None, file_sha256(work / CONFIG))
    if edited or (work / POINTER).is_file() or (work / RESULT).is_file():
        why = 'its config was edited since' if edited else 'a model was trained there'
        raise OwnDataError('\n  '.join([
            f'{work} is of the same command with other options, and {why}:', *changed]) +
            '\nGive the same options to go on, or another --work-dir')
    return dict(seconds=0., told=[])  # nothing is lost: it had only looked


def write_state(work: Path, options: Request, state: dict) -> None:
    """Writes what the next start of the same command needs to know."""
    with replacing(work / STATE) as unfinished:
        unfinished.write_text(json.dumps(state | dict(options=asdict(options), ignored=list(options.ignore)), indent=2)
                              + '\n', encoding='utf-8')


def find_weights(options: Request, say: Say) -> str:
    """Returns the file of the ViT's weights, or the address from which they were fetched.

    Raises:
        OwnDataError: they are not there, and cannot be fetched; the message says where to get them.
    """
    name = options.weights or settings_of_vit(options.vit)['init_cfg']['checkpoint']
    if not options.weights and Path(name).is_file():
        return str(Path(name).absolute())
    address = name if options.weights else address_of(name) or ''
    if options.weights and not is_remote(name):
        return name
    if not address.startswith(('http://', 'https://', 'timm://')) or ' ' in address:
        raise OwnDataError(f'the weights of {options.vit} are sent by their authors only: {address}. Get '
                           f'{Path(name).name}, and give its path with --weights, or put it at {Path(name).absolute()}')
    say(f'the weights of {options.vit} are those of {address}')
    try:
        fetch(address)
    except CheckpointError as error:
        raise OwnDataError(f'{error}\nIn this command: --weights FILE') from error
    return address


def plan_and_write(options: Request, weights: str, data: OwnData, config: Path, command: str, say: Say) -> list[str]:
    """Plans the run, writes the config, and returns what was said of it."""
    machine = Machine.this()
    plan = make_plan(data, patch_of(options), machine, options)
    asked = replace(options, weights=weights)
    say(f'measuring how long a step takes on {machine.name}')
    add_schedule(plan, data, machine, replace(options, iterations=1), None)
    add_schedule(plan, data, machine, options, timed(config, data, plan, asked, machine, options.batch is None))
    write_config(config, data, plan, asked, command)
    for reason in plan.reasons.values():
        say(f'{reason[0].upper()}{reason[1:]}')
    return list(plan.reasons.values())


def timed(config: Path, data: OwnData, plan: Setup, asked: Request, machine: Machine, may_shrink: bool) -> Times:
    """Measures a step, and halves the batch as long as it does not fit the GPU."""
    while True:
        write_config(config, data, plan, asked, 'unfinished')
        try:
            return measure(read_config(str(config)), plan, longest_ratio(data.sizes), machine.device)
        except torch.OutOfMemoryError as error:
            if plan.batch < 3 or not may_shrink:
                raise OwnDataError(f'a batch of {plan.batch} does not fit the GPU: lower --batch or --crop') from error
            plan.batch //= 2
            plan.reasons['batch'] = f'batches of {plan.batch}, because more do not fit {machine.name}'
        finally:
            config.unlink(missing_ok=True)


def check_same_classes(config: Path, data: OwnData) -> None:
    """Refuses to go on with a config of other classes than the masks have now.

    Raises:
        OwnDataError: they have changed.
    """
    classes = tuple(Config.fromfile(config, import_custom_modules=False).metainfo.classes)
    if classes != data.classes:
        raise OwnDataError(f'{config} has the classes {", ".join(classes)}, and what was found now has '
                           f'{", ".join(data.classes)}: give another --work-dir')


@contextmanager
def spent(work: Path, options: Request, state: dict, say: Say) -> Iterator[None]:
    """Adds the time that is spent to what earlier starts have spent, and says how to go on after an interruption."""
    start, before = time.monotonic(), state['seconds']
    with suppress(ValueError):  # only the main thread handles signals
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error.code, int) and error.code > 128):
            say('\ninterrupted; the same command goes on')
        raise
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        state['seconds'] = before + time.monotonic() - start
        write_state(work, options, state)


def end(number: int, frame: object) -> None:
    """Ends the process on a signal as on an error, so that nothing is left half done; trainings save first."""
    raise SystemExit(128 + number)


def named(cfg: Config, what: str) -> Config:
    """Gives a run names of its own: its log, of which MMEngine keeps one for each name, and its config in full.

    MMEngine writes the config of a run into its folder, under its name; it must not replace the one with comments.
    """
    full = Path(cfg.work_dir, 'config_in_full.py')
    own = Config(cfg.to_dict(), cfg_text=f'# {full}', filename=str(full))
    own.experiment_name = f'{Path(cfg.work_dir).name}_{what}_{time.time_ns()}'
    return own


def train(config: Path, say: Say) -> Path:
    """Trains, from the newest checkpoint if there is one, and returns the best checkpoint."""
    cfg = read_config(str(config))
    set_resume(cfg, Path(cfg.work_dir, POINTER).is_file())
    check_files(cfg, ('train_dataloader', 'val_dataloader'), pretrained=not cfg.get('resume'))
    say(f'training; the log is in {cfg.work_dir}')
    runner = QuietRunner.from_cfg(named(cfg, 'train'))
    check_run(runner)
    runner.register_hook(ShowProgressHook())
    runner.train()
    best = best_checkpoint(Path(cfg.work_dir))
    if best is None:
        raise OwnDataError(f'{cfg.work_dir} has no checkpoint of a validation: let train_cfg.val_interval be '
                           'at most train_cfg.max_iters')
    return best


def best_checkpoint(work: Path) -> Path | None:
    """Returns the best checkpoint of the validations, the newest of several; None if there is none."""
    found = sorted(work.glob('best_*.pth'), key=lambda file: file.stat().st_mtime)
    return found[-1] if found else None


def evaluate(config: Path, checkpoint: Path, data: OwnData, say: Say) -> dict:
    """Tests a checkpoint, writes numbers and pictures, and returns the result."""
    cfg = read_config(str(config))
    cfg.update(load_from=str(checkpoint), resume=False)
    check_files(cfg, ('test_dataloader', ), pretrained=False)
    runner = QuietRunner.from_cfg(named(cfg, 'test'))
    runner.register_hook(ShowProgressHook())
    confusion = add_confusion(runner, ConfusionByImage)
    say(f'testing {checkpoint.name} on the {data.counts[data.measured]} images of {data.measured}')
    metrics = write_metrics(runner, runner.test(), str(checkpoint), confusion)
    key, metric, _ = SCORES[data.task]
    per_class = scores_of_classes(confusion.matrix, data.classes, data.task == 'segmentation')
    pictures = draw_extremes(runner, confusion.scores, Path(cfg.work_dir, 'pictures'))
    order = sorted(confusion.scores.values())
    shown = dict(best=order[::-1], worst=order)
    absent = [row['class'] for row in per_class if row.get('IoU', 0) is None]
    return dict(task=data.task, metric=metric, score=metrics[key], measured_on=data.measured,
                images=data.counts[data.measured], classes=list(data.classes), per_class=per_class, absent=absent,
                config=str(config), checkpoint=str(checkpoint), pictures={
                    kind: [(str(file), score) for file, score in zip(files, shown[kind])]
                    for kind, files in pictures.items()}, scores_by_image=confusion.scores)


def finish(work: Path, result: dict, data: OwnData, told: list[str]) -> None:
    """Writes the report, and at last the result, by which the next start knows that all is done."""
    write_report(work / 'report.md', result, data, told)
    with replacing(work / RESULT) as unfinished:
        unfinished.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')

"""Arguments that several tools share. Nothing here may import slow packages, because tools parse before they do."""

import argparse
import errno
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
CLONE = Path(__file__).resolve().parents[1]
ROOT = Path.cwd() if CLONE.name == '.mim' else CLONE  # .mim is in an installed package, where nothing is written
TRACKERS = ('tensorboard', 'wandb', 'mlflow', 'clearml', 'aim')


def configs_command() -> str:
    """Returns the command that lists configs, in the manner in which this one was typed."""
    return 'mmseg-gpt configs' if sys.argv[0].startswith('mmseg-gpt ') else 'python tools/configs.py'


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the config and ``--cfg-options``."""
    parser.add_argument('config', help='a config file; or a name, such as setr_pup_gpt_mae_ade20k or, of an '
                        f'experiment of classification, cls_gpt_mocov3_cars ({configs_command()} lists them)')
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``, which changes settings of a config."""
    parser.add_argument('--cfg-options', nargs='+', action='extend', type=setting, default=[], metavar='KEY=VALUE',
                        help='override settings of the config, as KEY=VALUE pairs with dots for levels: '
                        'train_cfg.max_iters=100 optim_wrapper.optimizer.lr=0.01. Lists are written [a,b]; quote them '
                        'and leave no spaces.')


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options for other protocols of classification."""
    protocols = parser.add_mutually_exclusive_group()
    protocols.add_argument('--search-split', action='store_true', help='classification: train without the validation '
                           'images and evaluate on them, to choose hyperparameters; no test image is seen')
    protocols.add_argument('--authors-protocol', action='store_true', help='classification: do as the authors\' code, '
                           'with learning rate 0 in the first epoch and the best epoch chosen on the test images')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds further options of training and testing, under the names that OpenMMLab users know."""
    parser.add_argument('--work-dir', metavar='DIR', help='where to write (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--launcher', choices=LAUNCHERS, help='how several processes are started (default: pytorch '
                        'under torchrun, slurm under srun, else none)')
    parser.add_argument('--device', choices=('auto', 'cuda'), default='auto', help='cuda: stop where there is no GPU '
                        '(default: auto, which then goes on with the CPU)')
    # Old launchers pass this option; torchrun sets an environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_shared_vit_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the ViT that all tasks of a pool share."""
    parser.add_argument('--vit', metavar='FILE', help='the pretrained ViT of all tasks (default: the one that each '
                        'config names)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is a GPU')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32', help='type of the '
                        'ViT in memory; bfloat16 and float16 (on a GPU only) compute in mixed precision (default: '
                        '%(default)s)')


def add_suite_arguments(parser: argparse.ArgumentParser, out: str) -> argparse._MutuallyExclusiveGroup:
    """Adds the options of tools that carry out many runs; returns the group of those that run nothing.

    Args:
        parser: The tool's parser.
        out: The default of ``--out``, in words.
    """
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='run everything once per seed '
                        '(default: 0)')
    parser.add_argument('--out', type=Path, metavar='DIR', help='where runs and results are written '
                        f'(default: {out})')
    parser.add_argument('--jobs', type=positive(int), metavar='N', help='runs at once on this machine, spread over the '
                        'GPUs that this process sees (default: 1)')
    ways = add_cluster_arguments(parser)
    ways.add_argument('--dry-run', action='store_true', help='list the runs with their commands, and run nothing')
    ways.add_argument('--report-only', action='store_true', help='write the table from what is there, and run nothing')
    parser.add_argument('--retry-failed', action='store_true', help='give runs that failed another chance')
    parser.add_argument('--overwrite', action='store_true', help='remove runs of other settings in --out and start '
                        'them over; those of these settings are kept')
    return ways


def add_cluster_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Adds the options that say where many runs are carried out, and that look after them from elsewhere.

    Returns:
        The group of options that run nothing, each the only one of them.
    """
    parser.add_argument('--on', choices=('local', 'slurm', 'ray'), default='local', help='where: by this process, or '
                        'each run as a job of a cluster, which sees the same folders (default: local)')
    parser.add_argument('--slurm', nargs='+', action='extend', type=setting, default=[], metavar='KEY=VALUE',
                        help='options of sbatch for --on slurm: time=8:00:00 gpus=1 partition=NAME account=NAME')
    parser.add_argument('--ray', nargs='+', action='extend', type=setting, default=[], metavar='KEY=VALUE',
                        help='for --on ray: address=HOST:PORT, and for each run gpus=0.5 cpus=4')
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument('--watch', action='store_true', help='only show which runs are queued, running, finished and '
                      'failed, wherever they are carried out')
    ways.add_argument('--cancel', action='store_true', help='only end the runs that are queued or running; what they '
                      'have done is kept')
    return ways


def where_to_work(args: argparse.Namespace) -> dict:
    """Returns the arguments of :func:`add_cluster_arguments` by the names that functions have for them.

    Raises:
        SystemExit: a setting is wrong, or is one of another cluster, or there is no cluster to submit to; or an option
            is about runs, and another one says that nothing is run.
    """
    from mmseg_gpt.lab.runs.jobs import make_cluster
    for name in ('slurm', 'ray'):
        if getattr(args, name) and args.on != name:
            raise SystemExit(f'--{name} is for --on {name}')
    if args.on != 'local' and args.jobs:
        raise SystemExit(f'--jobs is for this machine, and with --on {args.on} each run is a job: leave it out')
    only = next((name for name in ('watch', 'cancel', 'dry_run', 'report_only', 'estimate')
                 if getattr(args, name, False)), None)
    for name in ('retry_failed', 'overwrite') if only else ():
        if getattr(args, name):
            raise SystemExit(f'{dashed(only)} runs nothing: leave out {dashed(name)}')
    settings = dict(text.split('=', 1) for text in getattr(args, args.on, []))
    cluster = make_cluster(args.on, settings)
    if cluster and not only:
        cluster.check()
    return dict(cluster=cluster, watching=args.watch, cancelling=args.cancel)


def how_to_work(args: argparse.Namespace) -> dict:
    """Returns the arguments of :func:`add_suite_arguments` that say how runs are carried out, by name."""
    names = ('dry_run', 'report_only', 'retry_failed', 'overwrite')
    return {name: getattr(args, name) for name in names} | dict(jobs=args.jobs or 1) | where_to_work(args)


def dashed(name: str) -> str:
    """Returns an option as it is typed."""
    return f'--{name.replace("_", "-")}'


def check_given(args: argparse.Namespace, parser: argparse.ArgumentParser, needed: str, *names: str) -> None:
    """Refuses options that have no meaning without another one.

    Args:
        args: What was given.
        parser: The tool's parser.
        needed: The name of the option without which they have none.
        names: The names of these options.
    """
    for name in names if not getattr(args, needed) else ():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f'{dashed(name)} has no meaning without {dashed(needed)}')


def add_figure_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Adds ``--out``, the file of a figure.

    Args:
        parser: The tool's parser.
        out: The default.
    """
    parser.add_argument('--out', type=figure, default=Path(out), metavar='FILE', help='picture to write: .png, .svg or '
                        '.pdf. PNG and SVG are written in any case, and the numbers beside them as CSV and JSON '
                        '(default: %(default)s)')


def add_run_figure_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Adds the runs that a figure draws, and ``--out``.

    Args:
        parser: The tool's parser.
        out: The default of ``--out``.
    """
    source = parser.add_mutually_exclusive_group()
    source.add_argument('runs', nargs='*', type=Path, default=[], metavar='RUN', help='work directories of trained and '
                        'tested runs (default: the finished runs in --suite)')
    source.add_argument('--suite', type=Path, default=Path('work_dirs/suite'), metavar='DIR', help='where '
                        'mmseg-gpt suite wrote (default: %(default)s)')
    add_figure_arguments(parser, out)


def from_root(path: Path) -> Path:
    """Returns an absolute path as it is named from ``ROOT``, where it lies below that."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def python(tool: str, *arguments: str | Path) -> tuple[str, ...]:
    """Returns the command that runs one of our tools, as it is given in ``ROOT``."""
    return ('python', os.path.relpath(CLONE / f'tools/{tool}.py', ROOT), *map(str, arguments))


def check_publishing(asked: bool, parser: argparse.ArgumentParser) -> None:
    """Refuses ``--publish`` where there is no documentation to write into."""
    if asked and CLONE.name == '.mim':
        parser.error('--publish writes into the documentation of a clone of the repository, and this is an installed '
                     'package')


def figure(text: str) -> Path:
    """Reads the file of a figure.

    Raises:
        argparse.ArgumentTypeError: it has another suffix than .png, .svg and .pdf.
    """
    if Path(text).suffix not in ('.png', '.svg', '.pdf'):
        raise argparse.ArgumentTypeError(f'{text} must end in .png, .svg or .pdf')
    return Path(text)


def runs_at_once(jobs: int | None) -> int:
    """Returns how many runs are carried out at once: as asked for, or one for each CPU, and at most 8 on a GPU."""
    import torch

    from mmseg_gpt.environment import available_cpus
    cpus = available_cpus()
    return jobs or (min(cpus, 8) if torch.cuda.is_available() else cpus)


def add_task_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--task NAME ...``, which is read to a list ``tasks`` of names, configs and checkpoints."""
    parser.add_argument('--task', nargs='+', action=Task, required=True, dest='tasks', default=[], metavar=(
        'NAME', 'MODEL'), help=(
        'a task: NAME, of your choice, and its model: a config (a file or a name, which '
        f'{configs_command()} lists) and its checkpoint; or the work directory of adapt; or hf://OWNER/NAME, which was '
        'pulled before. Give --task again for each further one'))


class Task(argparse.Action):
    """Reads ``NAME CONFIG CHECKPOINT``, ``NAME WORK_DIR`` of ``adapt`` or ``NAME hf://OWNER/NAME``."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list[str],
                 option: str | None = None) -> None:
        if len(values) not in (2, 3):
            parser.error(f'{option} takes NAME CONFIG CHECKPOINT, or NAME and a work directory of adapt, got: '
                         f'{" ".join(values)}')
        name, *model = values
        if len(model) == 1:
            model = config_and_checkpoint(model[0], parser)
        namespace.tasks = [*namespace.tasks, [name, *model]]


def config_and_checkpoint(model: str, parser: argparse.ArgumentParser) -> list[str]:
    """Returns config and checkpoint of a model that has one name: a work directory of adapt, or ``hf://OWNER/NAME``."""
    if is_of_hub(model):
        return [model, model]
    from mmseg_gpt.own_data import OwnDataError, load
    try:
        found = load(model)
    except OwnDataError as error:
        parser.error(f'{error}. Of a model that adapt has not made, give the config and the checkpoint')
    return [str(found.config), str(found.checkpoint)]


def is_of_hub(name: str) -> bool:
    """Says whether a config or a checkpoint is a model of the hub, ``hf://OWNER/NAME``."""
    return name.startswith('hf://')


def checkpoint_is_there(checkpoint: str) -> bool:
    """Says whether a checkpoint is a file, or one of the hub, which is looked for later."""
    return is_of_hub(checkpoint) or Path(checkpoint).is_file()


def check_port(port: int, parser: argparse.ArgumentParser, least: int = 0) -> None:
    """Refuses a ``--port`` that cannot be; 0 takes a free one, where that is allowed."""
    if not least <= port < 2**16:
        parser.error(f'--port must be from {least} to 65535, got {port}')


def check_address(host: str, port: int) -> None:
    """Checks that an address can be listened on.

    Raises:
        SystemExit: it cannot.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            if os.name == 'posix':  # elsewhere this would take a port from its owner
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:
        from mmseg_gpt.wording import reason  # only now, as importing takes seconds
        remedy = '; give another --port' if getattr(error, 'errno', None) == errno.EADDRINUSE else ''
        raise SystemExit(f'--host {host} --port {port}: {reason(error)}{remedy}') from error


def check_device(device: str | None) -> None:
    """Stops if ``--device cuda`` was given and there is no GPU.

    Raises:
        SystemExit: there is no GPU.
    """
    import torch
    if device == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('--device cuda: no GPU is visible to PyTorch')


def positive(kind: type) -> Callable[[str], float]:
    """Makes a reader of numbers above 0."""
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float('inf'):
            raise argparse.ArgumentTypeError(f'{text} is not above 0')
        return value
    return number


def setting(text: str) -> str:
    """Returns a setting of a config as it was typed; :func:`mmseg_gpt.engine.read_config` parses it.

    Raises:
        argparse.ArgumentTypeError: it is not KEY=VALUE.
    """
    if not text.partition('=')[1]:
        raise argparse.ArgumentTypeError(f'{text} is not KEY=VALUE')
    return text

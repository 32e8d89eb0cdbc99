"""The real thing, small: pretrain, adapt with gated prompts, evaluate and draw, in minutes on two CPU cores.

Every step is an ordinary command of this repository and is printed before it runs. A finished step is not
run again, so an interrupted demo goes on where it stopped; --fresh begins from the start.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MAE, GPT = 'configs/demo/mae_pretrain_sample.py', 'configs/demo/setr_pup_gpt_mae_sample.py'
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
HOME = 'work_dirs/demo'  # what the configs say; another work directory needs options
SEED = 0


class Preset(NamedTuple):
    """How much is done: images in each split, iterations, batch size."""
    training: int
    validation: int
    mae: int
    gpt: int
    batch: int


FULL, QUICK = Preset(1500, 100, 240, 400, 0), Preset(48, 12, 4, 24, 8)


class Step(NamedTuple):
    """One command.

    Attributes:
        name: Its key in steps.json and the name of its log.
        title: What it does, for people.
        command: What is run, from the root of the repository.
        outputs: Files that are there when it is done.
        seconds: How long it takes on two cores, in the full preset and in the quick one; for the time left.
    """
    name: str
    title: str
    command: list[str]
    outputs: list[Path]
    seconds: tuple[int, int]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='where everything goes, the dataset too '
                        f'(default: {HOME}, with --quick {HOME}_quick)')
    parser.add_argument('--quick', action='store_true', help='a few images and iterations: shows in a minute or two '
                        'that every step works, and learns next to nothing')
    parser.add_argument('--fresh', action='store_true', help='run finished steps again')
    args = parser.parse_args()
    args.work_dir = args.work_dir or ROOT / (f'{HOME}_quick' if args.quick else HOME)
    return args


def make_steps(work_dir: Path, preset: Preset) -> list[Step]:
    """The commands, in order. Options are only given where they differ from what the configs say."""
    data, mae, adapted = work_dir / 'data', work_dir / 'mae/mae.pth', work_dir / 'adapted/adapted.pth'
    moved = work_dir != Path(HOME)
    loader = [f'train_dataloader.batch_size={preset.batch}'] if preset.batch else []
    quick = preset is QUICK

    def python(tool: str, *arguments: str | Path) -> list[str]:
        return ['python', f'tools/{tool}.py', *map(str, arguments)]

    def options(loaders: tuple[str, ...], *more: str) -> list[str]:
        paths = [f'{name}_dataloader.dataset.data_root={data}' for name in loaders] if moved else []
        return ['--cfg-options', *paths, *more] if paths or more else []

    shorter = [*loader, f'train_cfg.max_iters={preset.gpt}', f'train_cfg.val_interval={preset.gpt}',
               f'param_scheduler.0.end={preset.gpt}'] if quick else []
    shorter_mae = [*loader, f'train_cfg.max_iters={preset.mae}', 'param_scheduler.0.end=2',
                   'param_scheduler.1.begin=2', f'param_scheduler.1.end={preset.mae}'] if quick else []
    weights = [f'model.backbone.init_cfg.checkpoint={mae}'] if moved else []
    fitting = options(('train', 'val'), *weights)[1:]
    return [
        Step('dataset', 'draw the sample dataset',
             python('make_sample_dataset', '--out', data, '--images', preset.training, '--val-images',
                    preset.validation, '--seed', SEED), [data / 'manifest.json'], (14, 6)),
        Step('mae', 'pretrain a small ViT on its images, without labels (MAE, mmpretrain)',
             python('train', MAE, '--work-dir', work_dir / 'mae', *options(('train', ), *shorter_mae)),
             [mae], (175, 10)),
        Step('untrained', 'how good are untrained prompts and heads? One iteration with learning rate 0',
             python('train', GPT, '--work-dir', work_dir / 'untrained', '--cfg-options', *fitting,
                    'train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'optim_wrapper.optimizer.lr=0'),
             [work_dir / 'untrained/adapted.pth'], (16, 10)),
        Step('adapt', 'freeze the ViT; train gated prompts, temperatures and SETR-PUP heads',
             python('train', GPT, '--work-dir', work_dir / 'adapted', *options(('train', 'val'), *weights, *shorter)),
             [adapted], (190, 20)),
        Step('test', 'evaluate on the validation images, single-scale',
             python('test', GPT, adapted, '--work-dir', work_dir / 'test', '--out', work_dir / 'predictions',
                    *options(('test', ))), [work_dir / 'test/metrics.json'], (14, 9)),
        Step('test_tta', 'evaluate at four scales with flip',
             python('test', GPT, adapted, '--tta', '--work-dir', work_dir / 'test', *options(('test', ))),
             [work_dir / 'test/metrics_tta.json'], (32, 10)),
        Step('gates', 'draw what the gates learnt',
             python('plot_gates', work_dir / 'untrained/adapted.pth', adapted, '--names', 'untrained', 'adapted',
                    '--out', work_dir / 'gates.png'), [work_dir / 'gates.png'], (5, 6)),
    ]


class Progress:
    """Shows a running command in one line (a line now and then where there is no terminal) and the time left.

    Args:
        seconds: Estimates for all steps that will run, in order.
    """

    def __init__(self, seconds: list[int]) -> None:
        self.estimates, self.spent, self.last = seconds, [], 0.

    def left(self) -> str:
        """The estimate for what remains, corrected by how long the steps so far took."""
        done, rest = sum(self.estimates[:len(self.spent)]), sum(self.estimates[len(self.spent):])
        # Early on the estimates count as half a minute of experience, so one slow start does not dominate.
        return duration(rest * (sum(self.spent) + 30) / (done + 30))

    def show(self, line: str) -> None:
        """Prints what ``line`` of a log says about progress, if anything, every few seconds."""
        text, now = condense(line), time.time()
        if not text or now - self.last < (0.2 if sys.stdout.isatty() else 5):
            return
        self.last = now
        print(f'\r\033[K      {text}' if sys.stdout.isatty() else f'      {text}',
              end='' if sys.stdout.isatty() else '\n', flush=True)

    def finish(self, seconds: float) -> None:
        """Ends the step's line."""
        self.spent.append(seconds)
        self.last = 0.
        print(('\r\033[K' if sys.stdout.isatty() else '') + f'      done in {duration(seconds)}\n', flush=True)


def condense(line: str) -> str | None:
    """The part of a log line that shows progress: ``train 120/300, eta 0:01:12, loss 0.61``; else None."""
    if match := re.search(r'(?:Iter|Epoch)\((\w+)\)\s+\[\s*(\d+/\d+)\]', line):
        values = [f'{key} {value}' for key, value in re.findall(r'\b(eta|loss|mIoU): (\S+)', line)]
        return ', '.join([f'{match[1]} {match[2]}', *values])
    match = re.match(r'\d+/\d+ scenes drawn', line)
    return match[0] if match else None


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    return f'{seconds:.0f} s' if seconds < 60 else f'{int(seconds) // 60} min {int(seconds) % 60} s'


def run_step(step: Step, log: Path, progress: Progress) -> float:
    """Runs a command with its output in ``log``, and returns its seconds.

    Raises:
        SystemExit: it failed; the message has the end of the log and its path.
    """
    # Passive: threads that spin while they wait make everything slow where the CPUs are shared.
    environment = {'OMP_NUM_THREADS': str(min(CPUS, 8)), 'OMP_WAIT_POLICY': 'PASSIVE', 'PYTHONWARNINGS': 'ignore',
                   **os.environ}
    started = time.time()
    with log.open('w') as file, subprocess.Popen(
            [sys.executable, *step.command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors='replace', env=environment) as process:
        try:
            for line in process.stdout:
                file.write(line)
                progress.show(line)
        except KeyboardInterrupt:
            process.terminate()
            sys.exit('\nstopped; run it again to go on with this step')
    if process.returncode or not all(path.exists() for path in step.outputs):
        end = '\n'.join(log.read_text().splitlines()[-15:])
        sys.exit(f'\n{end}\n\nThis step failed (exit status {process.returncode}). All it printed: {log}')
    return time.time() - started


def run_steps(steps: list[Step], work_dir: Path, quick: bool, fresh: bool) -> dict[str, float]:
    """Runs what is not done yet, and returns the seconds of every step by its name."""
    record_file, logs = work_dir / 'steps.json', work_dir / 'logs'
    logs.mkdir(parents=True, exist_ok=True)
    records = json.loads(record_file.read_text()) if record_file.is_file() and not fresh else {}
    done = 0  # finished steps at the front; whatever follows one that is run is run as well
    while done < len(steps) and records.get(steps[done].name, {}).get('command') == steps[done].command \
            and all(path.exists() for path in steps[done].outputs):
        done += 1
    records = {step.name: records[step.name] for step in steps[:done]}
    progress = Progress([step.seconds[quick] for step in steps[done:]])
    for i, step in enumerate(steps):
        head = f'[{i + 1}/{len(steps)}] {step.title}'
        if i < done:
            print(f'{head}: done before, skipped (--fresh runs it again)', flush=True)
            continue
        print(f'{head}   (about {progress.left()} left in all)\n    $ {" ".join(step.command)}', flush=True)
        seconds = run_step(step, logs / f'{step.name}.log', progress)
        progress.finish(seconds)
        records[step.name] = dict(command=step.command, seconds=round(seconds, 1))
        record_file.write_text(json.dumps(records, indent=2) + '\n')
    return {step.name: records[step.name]['seconds'] for step in steps}


def collect(work_dir: Path, preset: Preset, seconds: dict[str, float]) -> dict:
    """Gathers the numbers that the steps left."""
    from mmseg_gpt.sample import CLASSES
    from mmseg_gpt.sample.report import majority_iou

    def read(path: Path) -> dict:
        return json.loads(path.read_text())

    winner, iou = majority_iou(work_dir / 'data', dict(training=preset.training, validation=preset.validation))
    return dict(
        single_scale=read(work_dir / 'test/metrics.json'),
        multi_scale=read(work_dir / 'test/metrics_tta.json'),
        untrained=dict(mIoU=last_miou(work_dir / 'logs/untrained.log')),
        majority={'class': winner, 'mIoU': iou / len(CLASSES)},
        parameters=count_parameters((work_dir / 'logs/adapt.log').read_text()),
        seconds=seconds, seed=SEED, cpus=CPUS,
        versions={name: version(name) for name in ('torch', 'mmengine', 'mmsegmentation', 'mmpretrain')})


def last_miou(log: Path) -> float:
    """The last validation result in a log."""
    return float(re.findall(r'mIoU: ([\d.]+)', log.read_text())[-1])


def count_parameters(log: str) -> dict[str, int]:
    """Reads the parameter table that training logs: rows of ``| part | trained (%) | frozen |``."""
    rows = {part: (int(trained.replace(',', '')), int(frozen.replace(',', ''))) for part, trained, frozen in
            re.findall(r'^\| ([\w. ]+?) +\| +([\d,]+)(?: \([\d.]+%\))? +\| +([\d,]+) +\|$', log, re.MULTILINE)}
    trained, frozen = rows['in all']
    return dict(trained=trained, total=trained + frozen,
                prompts=rows['backbone.prompt'][0] + rows['backbone.temperature'][0])


def write_report(work_dir: Path, preset: Preset, results: dict) -> None:
    """Writes results.json, results.md and predictions.png, and prints the table."""
    from mmseg_gpt.sample.report import plot_predictions, read_sample, results_table
    (work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    table = results_table(results)
    (work_dir / 'results.md').write_text(table)
    shown = [read_sample(work_dir / 'data', work_dir / 'predictions', i) for i in range(min(8, preset.validation))]
    plot_predictions(shown, work_dir / 'predictions.png')
    print(f'{table}\nLeft for you in {work_dir}:')
    for name, what in (('results.md', 'this table (results.json: with all digits)'),
                       ('predictions.png', 'validation images, ground truth and prediction'),
                       ('gates.png', 'what the gates learnt'), ('adapted/adapted.pth', 'the adapted model'),
                       ('logs/', 'the full output of every step')):
        print(f'  {work_dir / name}  {what}')


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: takes the running command along
    work_dir = args.work_dir.resolve()
    work_dir = work_dir.relative_to(ROOT) if work_dir.is_relative_to(ROOT) else work_dir
    os.chdir(ROOT)  # the commands are run and shown as from there
    preset = QUICK if args.quick else FULL
    print(f'Demo in {work_dir}, on {CPUS} CPUs. The steps are the commands shown; their output goes to '
          f'{work_dir / "logs"}/.\n', flush=True)
    seconds = run_steps(make_steps(work_dir, preset), work_dir, args.quick, args.fresh)
    write_report(work_dir, preset, collect(work_dir, preset, seconds))


if __name__ == '__main__':
    main()

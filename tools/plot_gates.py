"""Draws gates, selection ratios (Figure 4 of the paper) and temperatures: by block, or over a training."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import add_figure_arguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='By block: %(prog)s work_dirs/NAME/iter_160000.pth. Over the training, from '
        'its log: %(prog)s work_dirs/NAME. It says which gates have not moved from their prior, because '
        'untrained gates have a uniform selection ratio too.')
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='checkpoints, whole or with adapters only, '
                        'drawn side by side; or work directories, drawn one below the other')
    parser.add_argument('--names', nargs='+', help='names in the figure (default: FOLDER/FILE, or FOLDER)')
    add_figure_arguments(parser, 'gates.png')
    args = parser.parse_args()
    folders = [run.is_dir() for run in args.runs]
    if any(folders) and not all(folders):
        parser.error('checkpoints and work directories do not go into one figure')
    args.names = args.names or [default_name(run.resolve()) for run in args.runs]
    if len(args.names) != len(args.runs):
        parser.error(f'{len(args.runs)} runs but {len(args.names)} names')
    if len(set(args.names)) < len(args.names):
        parser.error(f'several runs would be called the same, {", ".join(args.names)}: give them --names')
    args.folders = all(folders)
    return args


def default_name(run: Path) -> str:
    """Returns the name of a run in the figure."""
    return run.name if run.is_dir() else f'{run.parent.name}/{run.stem}'


def compare_checkpoints(runs: list[Path], names: list[str]) -> tuple['Figure', list[dict], list[str | None]]:
    """Draws the figure by block; returns it, its numbers, and a note on each run or None."""
    from mmseg_gpt.analysis.gate_figures import plot_gates
    from mmseg_gpt.analysis.gates import read_checkpoint, report_rows
    reports = [read_checkpoint(run, name) for run, name in zip(runs, names)]
    return plot_gates(reports), [row for r in reports for row in report_rows(r)], [r.note for r in reports]


def follow_training(runs: list[Path], names: list[str]) -> tuple['Figure', list[dict], list[str | None]]:
    """Draws the figure over the iterations; returns it, its numbers, and a note on each run or None."""
    from mmseg_gpt.analysis.gate_figures import plot_history
    from mmseg_gpt.analysis.gates import has_hard_gates, history_rows, read_history
    from mmseg_gpt.lab.finished import settings_trained_with
    from mmseg_gpt.lab.scalars import read_scalars
    backbones = [settings_trained_with(run).get('model', {}).get('backbone') or {} for run in runs]
    histories = [read_history(read_scalars(run)[0], name, has_hard_gates(backbone))
                 for run, name, backbone in zip(runs, names, backbones)]
    return plot_history(histories), [row for h in histories for row in history_rows(h)], [h.note for h in histories]


def main() -> None:
    args = parse_args()
    from mmseg_gpt.analysis.figures import write_figure, write_numbers  # after the arguments, as it takes seconds
    from mmseg_gpt.checkpoints import CheckpointError
    from mmseg_gpt.resources import this_command
    try:
        figure, rows, notes = (follow_training if args.folders else compare_checkpoints)(args.runs, args.names)
        notes = [note for note in notes if note]
        files = write_figure(figure, args.out)
        files += write_numbers(rows, args.out, command=this_command(), notes=notes)
    except (CheckpointError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(*notes, f'written: {", ".join(map(str, files))}', sep='\n')


if __name__ == '__main__':
    main()

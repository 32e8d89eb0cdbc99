"""Draws the gates, selection ratios (Figure 4 of the paper) and temperatures of checkpoints by block."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmseg_gpt.analysis import GateReport


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoints', nargs='+', help='checkpoints of this project, drawn side by side')
    parser.add_argument('--names', nargs='+', help='what the legend calls them (default: folder/file)')
    parser.add_argument('--out', default='gates.png', help='picture to write: .png, .svg or .pdf; the numbers go '
                        'beside it as .json (default: %(default)s)')
    args = parser.parse_args()
    args.names = args.names or [f'{Path(c).parent.name}/{Path(c).stem}' for c in args.checkpoints]
    if len(args.names) != len(args.checkpoints):
        parser.error(f'{len(args.checkpoints)} checkpoints but {len(args.names)} names')
    return args


def numbers(report: 'GateReport') -> dict:
    """The plotted numbers, as plain lists."""
    from mmseg_gpt.analysis import selection_ratio
    gates, temperatures = report.gates, report.temperatures
    return {
        'gates': None if gates is None else gates.tolist(),
        'selection_ratio': None if gates is None else selection_ratio(gates).tolist(),
        'temperatures': None if temperatures is None else temperatures.tolist()
    }


def main() -> None:
    args = parse_args()
    from mmengine.fileio import dump  # after the arguments, as importing takes seconds

    from mmseg_gpt.analysis import plot_gates, read_gates
    from mmseg_gpt.checkpoints import read_state_dict
    from mmseg_gpt.engine import errors_in_words
    with errors_in_words():
        reports = [read_gates(read_state_dict(c), name) for c, name in zip(args.checkpoints, args.names)]
    plot_gates(reports, args.out)
    table = Path(args.out).with_suffix('.json')
    dump({report.name: numbers(report) for report in reports}, table, indent=2)
    print(f'written: {args.out} and {table}')


if __name__ == '__main__':
    main()

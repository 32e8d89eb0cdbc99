"""Checks on a GPU, in at most 8 minutes, that it computes what it should, and measures how fast.

It writes gpu_check.json and gpu_check.md after each part, so that nothing is lost when it is stopped: the device,
parity in all types, images per second, the share of the measured matrix rate, memory, kernels, CUDA graphs,
compiling, a training in float32 and bfloat16, determinism, and the tests that need a GPU. Nothing is downloaded.
"""

import argparse
import signal
import sys
import warnings
from pathlib import Path

CONFIG = Path(__file__).resolve().parent.parent / 'configs/setr_pup_gpt_mae_ade20k.py'
PARTS = ('machine', 'float64', 'shorter_types', 'deterministic', 'rate', 'images_per_second', 'sample_training',
         'cuda_graph', 'deterministic_graph', 'kernels', 'marked_tests', 'compiled')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('gpu_check'),
                        help='folder for the report (default: %(default)s)')
    parser.add_argument('--device', default='cuda', help='cpu to see that all works (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=470, help='the most time to take (default: %(default)g)')
    parser.add_argument('--quick', action='store_true', help='tiny models, to see that all works; as on a CPU')
    parser.add_argument('--only', nargs='+', choices=PARTS, default=[], metavar='PART',
                        help=f'some of the parts: {", ".join(PARTS)}')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    import torch  # after the arguments, as importing takes seconds

    import mmseg_gpt  # noqa: F401  must come before mmseg
    from mmseg_gpt.lab.gpu_check.run import check
    device = torch.device(args.device)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('no GPU is visible to PyTorch; --device cpu tries all parts without one, with tiny models')
    check(CONFIG, args.out, device, args.seconds, args.quick or device.type == 'cpu', args.only)
    print((args.out / 'gpu_check.md').read_text())


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')

"""Measures a training step and an evaluated image of our models beside what else users would pick.

A model is `eomt`, transformers' EomtForUniversalSegmentation, of which everything is trained; or HEAD:METHOD, such as
`linear:lora`, where HEAD is one of our heads, and METHOD one of our methods, or `peft`: PEFT's LoRA around
transformers' DINOv2 under our head. All have the same ViT with random weights, the same images and AdamW, and
take turns in one process. Memory is what live tensors take at most.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from arguments import positive

MODELS = ('eomt', 'setr_pup:gpt', 'linear:gpt', 'linear:lora', 'linear:peft')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='*', default=list(MODELS), metavar='MODEL',
                        help=f'models to measure (default: {" ".join(MODELS)})')
    parser.add_argument('--against', metavar='MODEL', help='model with which the others are compared (default: the '
                        'first)')
    parser.add_argument('--arch', choices=('tiny', 'small', 'base', 'large'), default='small')
    parser.add_argument('--image', type=positive(int), default=512, help='side in pixels (default: 512)')
    parser.add_argument('--batch', type=positive(int), default=1, help='training images (default: 1)')
    parser.add_argument('--classes', type=positive(int), default=150)
    parser.add_argument('--prompts', type=positive(int), default=100, help='number of prompts, for methods that '
                        'have any (default: 100)')
    parser.add_argument('--device', help='cpu or cuda (default: cuda if there is a GPU)')
    parser.add_argument('--threads', type=positive(int), help='number of PyTorch\'s CPU threads (default: its own '
                        'choice)')
    parser.add_argument('--rounds', type=positive(int), default=5, help='measurements of each time (default: 5)')
    parser.add_argument('--warmup', type=positive(int), default=1, help='rounds before these (default: 1)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, metavar='FILE', help='where to write all numbers')
    args = parser.parse_args()
    args.against = args.against or args.models[0]
    if args.against not in args.models:
        parser.error(f'--against {args.against}: this is none of the models')
    if len(set(args.models)) < len(args.models):
        parser.error('a model is named twice')
    if args.batch == 1 and any(model.startswith('upernet:') for model in args.models):
        parser.error('upernet pools its features to one pixel, and batch norm of that needs --batch 2')
    if args.image % 16:
        parser.error('--image must be a multiple of 16, the side of a patch')
    return args


def main() -> None:
    args = parse_args()
    import torch  # after the arguments, as importing takes seconds

    import mmseg_gpt  # noqa: F401  must come before mmseg
    from mmseg_gpt.lab.benchmark.peer_costs import Square, measure_peers, peers_table
    from mmseg_gpt.lab.benchmark.peers import check_names
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('--device cuda: no GPU is visible to PyTorch')
    try:
        check_names(args.models)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    sizes = Square(args.arch, None, args.image, args.classes, args.prompts, batch=args.batch)
    results = measure_peers(args.models, sizes, device, args.rounds, args.warmup, args.seed, args.against)
    print(peers_table(results))
    if args.json:
        results = dict(command=[os.path.relpath(__file__), *sys.argv[1:]], **results)
        args.json.write_text(json.dumps(results, indent=1) + '\n')
        print(f'written: {args.json}')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')

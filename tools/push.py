"""Shares a model on the Hugging Face Hub: what was trained, its config as data, and a card; nothing of a frozen ViT.

The repository is private unless --public is given.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import configs_command

if TYPE_CHECKING:
    from mmseg_gpt.apis.task import ServedTask

EXAMPLE = """\
examples:
  %(prog)s me/camvid work_dirs/camvid --license cc-by-4.0             # a folder that mmseg-gpt adapt has finished
  %(prog)s me/ade setr_pup_gpt_mae_ade20k ade.pth --public
  %(prog)s me/ade setr_pup_gpt_mae_ade20k ade.pth --only-write out    # look at the two files, and upload nothing

Before anything is uploaded, the file is read back and has to predict what the model predicts, bit by bit. Scores are
taken from the result.json or metrics.json beside the checkpoint. Log in with "hf auth login", or set HF_TOKEN.

Exit code: 0; 1 if the model cannot be shared or the hub says no; 2 for a wrong command line."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='OWNER/NAME on the hub, or NAME in your own account')
    parser.add_argument('config', metavar='CONFIG', help=f'a config file, or a name, which {configs_command()} lists; '
                        'or a folder that mmseg-gpt adapt has finished')
    parser.add_argument('checkpoint', nargs='?', metavar='CHECKPOINT', help='its checkpoint, whole or with adapters '
                        'only; none with a folder of mmseg-gpt adapt')
    parser.add_argument('--public', action='store_true', help='let everybody see a new repository, or push to one that '
                        'everybody sees')
    parser.add_argument('--license', metavar='ID', help='licence of what is pushed, as the hub calls it: apache-2.0, '
                        'cc-by-4.0, ... (default: no licence is given, so that nobody else may use it)')
    parser.add_argument('--whole', action='store_true', help='push a model whose ViT was trained, with its ViT')
    parser.add_argument('--revision', metavar='BRANCH', help='push to this branch (default: main)')
    parser.add_argument('--message', metavar='TEXT', help='what the commit says')
    parser.add_argument('--only-write', type=Path, metavar='DIR', help='write the files there, and upload nothing')
    parser.add_argument('--vit', metavar='FILE', help='the pretrained ViT (default: the one that the config names)')
    args = parser.parse_args()
    if not args.checkpoint and not Path(args.config, 'result.json').is_file():
        parser.error(f'give the CHECKPOINT too: {args.config} is no folder that mmseg-gpt adapt has finished')
    for name in ('public', 'message', 'revision'):
        if args.only_write and getattr(args, name):
            parser.error(f'--only-write uploads nothing: leave out --{name}')
    for name in ('checkpoint', 'vit'):
        if (file := getattr(args, name)) and not Path(file).is_file():
            parser.error(f'there is no {name} {file}')
    return args


def load(args: argparse.Namespace) -> 'ServedTask':
    """Loads the model that is to be shared.

    Raises:
        SystemExit: there is no such config, or the folder holds no finished adaptation.
    """
    from mmseg_gpt.apis import load_task
    from mmseg_gpt.engine.config import find_config
    from mmseg_gpt.hub.results import source_of
    if not args.checkpoint:
        found = source_of(args.config)
        if found is None:
            raise SystemExit(f'{args.config} holds no finished adaptation: its result.json cannot be read')
        args.config, args.checkpoint = found
    cfg = find_config(args.config)
    if args.vit:
        key = (cfg.model.backbone.get('init_cfg') or {}).get('key')
        cfg.model.backbone.init_cfg = dict(type='PretrainedViT', checkpoint=args.vit, key=key)
    task = load_task(args.name, cfg, args.checkpoint, frozen=False)
    if args.vit and not task.vit.frozen:
        raise ValueError('--vit is for a frozen ViT, and that of this model was trained: leave it out')
    return task


def share(args: argparse.Namespace) -> None:
    """Makes the files, uploads them unless they are only to be written, and says what was done."""
    from mmseg_gpt.hub import publish, push, read_name
    from mmseg_gpt.hub.push import find_target
    from mmseg_gpt.hub.results import results_beside
    from mmseg_gpt.wording import bytes_in_words
    name = read_name(args.name, args.revision)
    target = None if args.only_write else find_target(name, args.public)
    if target and target.keeps_card and args.license:
        raise ValueError(f'the card of {target.name} was changed by hand and stays: write the licence into it, and '
                         'leave out --license')
    task = load(args)
    results = results_beside(args.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        made = publish(target.name.repo if target else name.repo, task, args.only_write or Path(scratch), results,
                       args.license, args.whole)
        size = f'{made.trained:,} numbers, {bytes_in_words(made.adapter.stat().st_size)}'
        scores = ', '.join(f'{metric} {score:.2f}' for metric, score in results.get('scores', {}).items())
        print(f'read back, it predicts the same: {size}; {scores or "no scores were found beside the checkpoint"}')
        if target is None:
            print(f'written, and not uploaded: {made.adapter}, {made.card}')
            return
        pushed = push(target, made.adapter.parent, args.public, args.message)
    print(f'pushed to {pushed.address} ({"public" if args.public else "private"}), commit {pushed.commit[:12]}')
    if pushed.keeps_card:
        print('its card was changed by hand, and stays as it is')
    elif not args.license:
        print('its card says that others may not use it yet; --license says otherwise')
    print(f'elsewhere: mmseg-gpt pull {str(pushed.name).removeprefix("hf://")}')


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger  # after the arguments, as importing takes seconds

    from mmseg_gpt.engine import errors_in_words
    from mmseg_gpt.hub import HubError
    MMLogger.get_instance('push', log_level='WARNING')
    with errors_in_words():
        try:
            share(args)
        except (HubError, ValueError) as error:
            raise SystemExit(str(error)) from error


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('\nstopped')
